"""Players that need no Python."""
