/* Keys, buttons and the pointer, pressed through the XTest extension on a connection of our own. */
#define _GNU_SOURCE
#include "shim.h"

#include <X11/Xlib.h>
#include <X11/extensions/XTest.h>
#include <stdio.h>

static Display *display;

static int ignore_error(Display *d, XErrorEvent *event) {
  (void)d, (void)event;
  return 0;
}

void input_open(void) {
  display = XOpenDisplay(NULL);
  int unused;
  if (!display) link_fail("the X display cannot be opened");
  if (!XTestQueryExtension(display, &unused, &unused, &unused, &unused)) link_fail("the X server has no XTest");
  XAutoRepeatOff(display); /* the server would repeat held keys in real time */
}

static void press(const struct input_event *event) {
  if (event->kind == EVENT_KEY) {
    KeyCode code = XKeysymToKeycode(display, event->code);
    if (!code) fprintf(stderr, "lockstep: the keyboard has no key for keysym %#x\n", event->code);
    if (code) XTestFakeKeyEvent(display, code, event->down, CurrentTime);
  } else if (event->kind == EVENT_BUTTON) {
    XTestFakeButtonEvent(display, event->code, event->down, CurrentTime);
  } else if (event->kind == EVENT_POINTER) {
    XTestFakeMotionEvent(display, -1, (int)event->code, (int)event->down, CurrentTime);
  }
}

/* Returns when the server has handed the events to the game: it writes them out before it answers our XSync.
 *
 * Games put the pointer back to the middle each frame, by a request on a connection of their own (`game_display`).  Our
 * movement must not come before that is done, or it would be lost: so wait for the game's requests first. */
void input_inject(const struct action_message *action, void *game_display) {
  if (game_display && (action->mouse_dx || action->mouse_dy)) XSync(game_display, False);
  for (uint32_t i = 0; i < action->num_events; i++) press(&action->events[i]);
  bool moves = action->mouse_dx || action->mouse_dy;
  if (moves) XTestFakeRelativeMotionEvent(display, action->mouse_dx, action->mouse_dy, CurrentTime);
  if (moves || action->num_events) XSync(display, False);
}

static Window topmost_window(void) {
  Window root, parent, *children = NULL, found = None;
  unsigned count = 0;
  if (!XQueryTree(display, DefaultRootWindow(display), &root, &parent, &children, &count)) return None;
  while (count-- > 0 && found == None) {
    XWindowAttributes about;
    bool shown = XGetWindowAttributes(display, children[count], &about) && about.map_state == IsViewable;
    if (shown && about.class == InputOutput) found = children[count];
  }
  if (children) XFree(children);
  return found;
}

/* Nobody manages the windows of this display, so nobody gives a new one the keyboard.  Often at first, then seldom. */
void input_look_after_focus(uint32_t frame_number) {
  if (frame_number % (frame_number < 64 ? 4 : 64) != 1) return;
  XErrorHandler handler = XSetErrorHandler(ignore_error); /* a window may vanish while we look */
  Window window = topmost_window(), focused;
  int revert;
  XGetInputFocus(display, &focused, &revert);
  if (window != None && window != focused) XSetInputFocus(display, window, RevertToParent, CurrentTime);
  XSync(display, False);
  XSetErrorHandler(handler);
}

/* The size of `window`; left as it is where that is no plain window. */
void input_window_size(unsigned long window, uint32_t *width, uint32_t *height) {
  Window root;
  int x, y;
  unsigned w, h, border, depth;
  XErrorHandler handler = XSetErrorHandler(ignore_error);
  if (window && XGetGeometry(display, window, &root, &x, &y, &w, &h, &border, &depth)) *width = w, *height = h;
  XSetErrorHandler(handler);
}
