/* What happens at each draw.
 *
 * The camera of fixed-function games is captured: the matrices at the first draw of a frame that is seen in perspective
 * and from a place.  (A draw without perspective belongs to a menu; one from the origin is a sky box.)
 *
 * Draws of whole arrays are left out of frames at which nobody looks; what is drawn vertex by vertex is too entangled
 * with the game's state for that. */
#define _GNU_SOURCE
#include "shim.h"

#include <string.h>

#define GL_MODELVIEW_MATRIX 0x0BA6
#define GL_PROJECTION_MATRIX 0x0BA7
#define ORIGIN_EPSILON 1e-4f

static bool wanted, found;
static bool blind;
static float modelview[16], projection[16];

static void capture(void) {
  static void (*get)(unsigned, float *);
  if (!get) get = gl_function("glGetFloatv");
  float p[16], m[16];
  get(GL_PROJECTION_MATRIX, p);
  if (p[15] != 0.0f) return;
  get(GL_MODELVIEW_MATRIX, m);
  if (m[12] * m[12] + m[13] * m[13] + m[14] * m[14] < ORIGIN_EPSILON) return;
  memcpy(projection, p, sizeof p);
  memcpy(modelview, m, sizeof m);
  found = true;
}

/* Hand over what was captured for this frame, and begin anew. */
void camera_take(struct frame_message *message) {
  wanted = link_settings()->flags & FLAG_MATRICES;
  message->has_camera = found;
  if (found) {
    memcpy(message->modelview, modelview, sizeof modelview);
    memcpy(message->projection, projection, sizeof projection);
  }
  found = false;
}

void draws_leave_out(bool now_blind) { blind = now_blind; }

#define HOOK(name, leave_out, parameters, arguments)                                                                   \
  EXPORT void name parameters {                                                                                        \
    static void(*real) parameters;                                                                                     \
    if (!real) real = (void(*) parameters)gl_function(#name);                                                          \
    if (wanted && !found && on_main_thread()) capture();                                                               \
    if (!(leave_out)) real arguments;                                                                      \
  }

HOOK(glBegin, false, (unsigned mode), (mode))
HOOK(glCallList, false, (unsigned list), (list))
HOOK(glDrawArrays, blind, (unsigned mode, int first, int count), (mode, first, count))
HOOK(glDrawElements, blind, (unsigned mode, int count, unsigned type, const void *indices),
     (mode, count, type, indices))
HOOK(glDrawRangeElements, blind,
     (unsigned mode, unsigned start, unsigned end, int count, unsigned type, const void *indices),
     (mode, start, end, count, type, indices))

/* What stands in front of the OpenGL function `name`; NULL: nothing. */
void *camera_hook(const char *name) {
#define OFFER(function)                                                                                                \
  if (!strcmp(name, #function)) return (void *)function
  OFFER(glBegin);
  OFFER(glCallList);
  OFFER(glDrawArrays);
  OFFER(glDrawElements);
  OFFER(glDrawRangeElements);
  return NULL;
}
