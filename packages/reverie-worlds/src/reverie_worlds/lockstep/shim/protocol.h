/* What the shim (inside the game) and the controller (Python, ../protocol.py) say to each other.
 *
 * The controller passes two file descriptors down to the game: a SOCK_SEQPACKET socket, on which every message is one
 * packet, and a memory file with a `struct shared`, followed by the picture.  At the first buffer swap the shim checks
 * the memory's magic and version and says hello; the controller checks the hello.  Then, for each frame, the shim
 * writes the picture and sends a `struct frame_message`; the controller answers with a `struct action_message`.  An
 * action with ACTION_DEPTH alone asks for the depth buffer of the frame that is held: the shim writes it and sends the
 * same frame message again; the game goes on with the next action.
 *
 * Change VERSION, here and in protocol.py, with every change of a struct.  All fields are in the machine's byte order.
 */
#ifndef LOCKSTEP_PROTOCOL_H
#define LOCKSTEP_PROTOCOL_H

#include <stdint.h>

#define LOCKSTEP_MAGIC 0x4c4f434bu /* "LOCK" */
#define LOCKSTEP_VERSION 3u
#define LOCKSTEP_MAX_EVENTS 32

/* flags of the shared memory */
#define FLAG_MATRICES 1u /* capture the camera of fixed-function games */
#define FLAG_PRESENT 2u  /* show every frame on the X display too (slower; for a person who looks on) */

/* flags of an action */
#define ACTION_BLIND 1u /* what comes is not looked at: do not draw it, and hand out the picture before */
#define ACTION_DEPTH 2u /* hand out the depth buffer of this frame; nothing else of the action counts */

enum event_kind { EVENT_KEY = 0, EVENT_BUTTON = 1, EVENT_POINTER = 2 };

/* The head of the shared memory, written by the controller before the game starts. */
struct shared {
  uint32_t magic, version;
  uint32_t render_width, render_height; /* what the game draws */
  uint32_t width, height;               /* what is handed out: render size / a whole number */
  uint32_t flags;
  uint32_t pixels_offset; /* bytes from the start of the memory to the picture: height * width * 3, RGB, top row first */
  uint32_t depth_offset;  /* bytes to the depth buffer: render_height * render_width floats in [0, 1], lowest row first */
  uint32_t reserved[3];
};

struct hello_message {
  uint32_t magic, version, pid, reserved;
};

struct frame_message {
  uint32_t magic, number;
  uint32_t window_width, window_height;
  int64_t time_ns;
  uint32_t has_camera, reserved;
  float modelview[16], projection[16]; /* as OpenGL has them, column after column */
};

struct input_event {
  uint32_t kind;
  uint32_t code; /* keysym, button number, or x of the pointer */
  uint32_t down; /* 1 pressed, 0 released, or y of the pointer */
};

struct action_message {
  uint32_t magic, num_events;
  int32_t mouse_dx, mouse_dy; /* pixels, right and down */
  int64_t step_ns;            /* how far the clock goes on */
  uint32_t flags, reserved;
  struct input_event events[LOCKSTEP_MAX_EVENTS];
};

#endif
