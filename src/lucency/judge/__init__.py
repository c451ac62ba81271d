"""Predictions in, tables out. numpy and scipy, never torch."""
