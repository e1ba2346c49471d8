"""Foreign weights, read into our own modules."""
