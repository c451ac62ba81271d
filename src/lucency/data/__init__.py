"""Before the model: sources, preparation, split. No torch here."""
