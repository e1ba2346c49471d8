"""What must be installed for several of the games."""

SHIM_PROGRAMS = ("Xvfb", "gcc")
SHIM_DEBIAN = ("xvfb", "libgl1-mesa-dri", "libx11-dev", "libxtst-dev", "gcc", "libc6-dev")
"""What every game under the lock-step shim needs: a display, software OpenGL, a compiler."""

PANDA_DEBIAN = ("libegl1", "libgl1-mesa-dri")
"""What Panda3D needs to draw without a screen; whether it is there shows when a world is opened."""
