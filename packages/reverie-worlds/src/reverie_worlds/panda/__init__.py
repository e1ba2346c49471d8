"""Panda3D as a renderer for our own games: meshes, shaders, textures and depth, without a window."""
