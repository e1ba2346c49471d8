/* The shim's parts and what they offer each other.  All state lives in the file that owns it. */
#ifndef LOCKSTEP_SHIM_H
#define LOCKSTEP_SHIM_H

#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* resolve.c: the functions that the shim stands in front of */
void *real_function(const char *name);
void *real_versioned(const char *name);
void *library_function(const char *library, const char *name);
void *gl_function(const char *name);
/* `REAL(poll)` declares `real_poll`, looked up once. */
#define REAL(name)                                                                                                     \
  static __typeof__(&name) real_##name;                                                                                \
  if (!real_##name) real_##name = (__typeof__(&name))real_function(#name)

/* clock.c: the game's time */
void clock_start(void);
void clock_pause(void);
void clock_advance(int64_t step_ns);
int64_t clock_now(void);
bool on_main_thread(void);

/* link.c: the connection to the controller */
bool link_open(void);
bool link_is_open(void);
const struct shared *link_settings(void);
uint8_t *link_pixels(void);
float *link_depth(void);
void link_send_frame(const struct frame_message *message);
void link_receive_action(struct action_message *message);
void link_fail(const char *why) __attribute__((noreturn));

/* input.c: keys, buttons, pointer, focus */
void input_open(void);
void input_inject(const struct action_message *action, void *game_display);
void input_look_after_focus(uint32_t frame_number);
void input_window_size(unsigned long window, uint32_t *width, uint32_t *height);

/* picture.c: the frame, read back and averaged down; its depth buffer as it is */
void picture_read(uint32_t window_width, uint32_t window_height);
void picture_read_depth(uint32_t window_width, uint32_t window_height);

/* draws.c: draws that are left out, and the matrices of fixed-function games */
void draws_leave_out(bool blind);
void *camera_hook(const char *name);
void camera_take(struct frame_message *message);

#endif
