/* Lock-step: at each buffer swap hand out the frame, wait for the action, apply it, put the clock forward.
 *
 * The game is a program that polls its input after each swap and draws again: so what is injected here is seen in the
 * very next frame that is handed out. */
#define _GNU_SOURCE
#include "shim.h"

#include <stdatomic.h>
#include <stddef.h>

#define PRESENTED_FRAMES 200 /* shown on the display at first, so that windows take their size */
#define PRESENT_EVERY 64

static uint32_t frame_number;

static bool is_open(void) {
  static atomic_flag tried = ATOMIC_FLAG_INIT;
  if (atomic_flag_test_and_set(&tried)) return link_is_open();
  if (!link_open()) return false;
  input_open();
  clock_start();
  return true;
}

/* One frame out, one action in.  False: not ours to stop (no controller, or another thread's window). */
static bool stop_here(void *display, unsigned long window) {
  static uint32_t width, height;
  static bool blind;
  if (!is_open() || !on_main_thread()) return false;
  clock_pause();
  frame_number++;
  if (frame_number < PRESENTED_FRAMES || frame_number % PRESENT_EVERY == 0) {
    width = link_settings()->render_width, height = link_settings()->render_height;
    input_window_size(window, &width, &height);
  }
  if (!blind) picture_read(width, height);
  struct frame_message message = {.magic = LOCKSTEP_MAGIC, .number = frame_number, .time_ns = clock_now()};
  message.window_width = width, message.window_height = height;
  camera_take(&message);
  link_send_frame(&message);
  struct action_message action;
  for (link_receive_action(&action); action.flags & ACTION_DEPTH; link_receive_action(&action)) {
    picture_read_depth(width, height);
    link_send_frame(&message);
  }
  blind = action.flags & ACTION_BLIND;
  draws_leave_out(blind);
  input_look_after_focus(frame_number);
  input_inject(&action, display);
  clock_advance(action.step_ns);
  return true;
}

/* Copying each frame to a display at which nobody looks is wasted, but windows learn their size from it. */
static bool is_presented(void) {
  return !link_is_open() || link_settings()->flags & FLAG_PRESENT || frame_number < PRESENTED_FRAMES ||
         frame_number % PRESENT_EVERY == 0;
}

EXPORT void glXSwapBuffers(void *display, unsigned long drawable) {
  static void (*real)(void *, unsigned long);
  if (!real) real = (void (*)(void *, unsigned long))gl_function("glXSwapBuffers");
  bool stopped = stop_here(display, drawable);
  if (!stopped || is_presented()) real(display, drawable);
}

EXPORT unsigned eglSwapBuffers(void *display, void *surface) {
  static unsigned (*real)(void *, void *);
  if (!real) real = (unsigned (*)(void *, void *))library_function("libEGL.so.1", "eglSwapBuffers");
  bool stopped = stop_here(NULL, 0);
  return stopped && !is_presented() ? 1 : real(display, surface);
}
