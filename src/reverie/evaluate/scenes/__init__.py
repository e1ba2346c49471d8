"""Evaluation in scenes: a model with a spatial memory, held to recordings of the scene's place."""
