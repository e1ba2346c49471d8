"""Recording any window of an X11 desktop: its frames, and the player's input, on one monotonic clock."""
