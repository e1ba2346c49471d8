"""Scenes: keyframes of a place with depth and pose, and starts.  A session opened in one has its memory full."""
