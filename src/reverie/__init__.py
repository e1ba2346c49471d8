"""Reverie: an open, complete, real-time interactive world model."""
