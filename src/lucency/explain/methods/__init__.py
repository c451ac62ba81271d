"""The heat map methods, which need torch."""
