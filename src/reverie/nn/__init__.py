"""Layers.  They know no games."""
