"""Textures of the lungs as numbers."""
