"""Invented chest films with known truth: the embedded data set."""
