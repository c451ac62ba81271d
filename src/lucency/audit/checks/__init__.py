"""The leak doctor: every known mistake of the field, caught by name."""
