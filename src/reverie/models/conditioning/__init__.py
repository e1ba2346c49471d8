"""Conditioners: everything that a world model is conditioned on beside noise, actions and image tokens."""
