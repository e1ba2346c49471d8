"""Recording any window of an X11 desktop: its pictures, and what the player's hands did, on one monotonic clock."""
