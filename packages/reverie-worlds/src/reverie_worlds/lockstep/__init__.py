"""Any X11/OpenGL game in lock-step: it stops at each buffer swap, hands out its frame and waits for the next action.

A small C library (`shim/`) is preloaded into the unmodified game.  It is compiled at first use (`build.py`), talks to
the controller over a socket and shared memory (`protocol.py`), and everything that was started ends with the
controller, whatever happens to it (`processes.py`).  `LockstepGame` is all that a world needs.
"""

from reverie_worlds.lockstep.game import STEP_NS, LockstepGame

__all__ = ["STEP_NS", "LockstepGame"]
