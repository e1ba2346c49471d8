"""Layers.  They are independent of games."""
