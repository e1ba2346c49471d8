"""Real games for reverie: each folder is a game with its world, its player and its limits (`INFO`).

Shared by them: `lockstep` holds any X11/OpenGL game at each frame, `panda` draws our own games, `geometry` turns depth
buffers and camera matrices into depth and poses.
"""
