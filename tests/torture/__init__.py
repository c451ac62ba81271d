"""Tries at every door of the program, counted: `make torture` runs all, tests a sample of each."""
