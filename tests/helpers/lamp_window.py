"""A window that is white while `w` or a mouse button is held, and black otherwise.  `python lamp_window.py :5`"""

import sys

from Xlib import X, display

screen = display.Display(sys.argv[1])
root = screen.screen().root
window = root.create_window(
    20, 10, 448, 256, 0, screen.screen().root_depth, background_pixel=0,
    event_mask=X.KeyPressMask | X.KeyReleaseMask | X.ButtonPressMask | X.ButtonReleaseMask | X.StructureNotifyMask,
)  # fmt: skip
window.set_wm_name("The Lamp")
window.map()
paint = {light: window.create_gc(foreground=0xFFFFFF * light) for light in (0, 1)}
screen.sync()
print("ready", flush=True)
while True:
    event = screen.next_event()
    if event.type == X.MapNotify:
        window.set_input_focus(X.RevertToParent, X.CurrentTime)
        screen.flush()
    if event.type in (X.KeyPress, X.KeyRelease, X.ButtonPress, X.ButtonRelease):
        window.fill_rectangle(paint[event.type in (X.KeyPress, X.ButtonPress)], 0, 0, 448, 256)
        screen.flush()
