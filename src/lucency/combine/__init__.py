"""Predictions in, predictions out: ensembles, classical learners, similar films; never torch."""
