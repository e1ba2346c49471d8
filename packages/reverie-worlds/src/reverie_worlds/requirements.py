"""Debian packages that several of the games need."""

SHIM_PROGRAMS = ("Xvfb", "gcc")
SHIM_DEBIAN = ("xvfb", "libgl1-mesa-dri", "libx11-dev", "libxtst-dev", "gcc", "libc6-dev")
"""Packages for every game under the lock-step shim: a display, software OpenGL, a compiler."""

PANDA_DEBIAN = ("libegl1", "libgl1-mesa-dri")
"""Packages for Panda3D without a screen; a missing one is reported when a world is opened."""
