/* The frame: read from the back buffer, averaged down, turned upright, as RGB in the shared memory. */
#define _GNU_SOURCE
#include "shim.h"

#include <stdlib.h>
#include <string.h>

#define GL_PACK_ROW_LENGTH 0x0D02
#define GL_PACK_ALIGNMENT 0x0D05
#define GL_BGRA 0x80E1
#define GL_UNSIGNED_INT_8_8_8_8_REV 0x8367
#define GL_DEPTH_COMPONENT 0x1902
#define GL_FLOAT 0x1406
#define GL_PIXEL_PACK_BUFFER 0x88EB
#define GL_PIXEL_PACK_BUFFER_BINDING 0x88ED
#define GL_READ_FRAMEBUFFER 0x8CA8
#define GL_READ_FRAMEBUFFER_BINDING 0x8CAA
#define GL_READ_BUFFER 0x0C02
#define GL_BACK 0x0405

/* Software OpenGL keeps its pictures in this order: reading them so is a copy, anything else is a conversion. */
struct bgra {
  uint8_t b, g, r, a;
};

struct gl {
  void (*read_pixels)(int, int, int, int, unsigned, unsigned, void *);
  void (*get)(unsigned, int *);
  void (*pixel_store)(unsigned, int);
  void (*read_buffer)(unsigned);
  void (*bind_buffer)(unsigned, unsigned);
  void (*bind_framebuffer)(unsigned, unsigned);
};

static const struct gl *gl(void) {
  static struct gl table;
  if (table.read_pixels) return &table;
  table.get = gl_function("glGetIntegerv");
  table.pixel_store = gl_function("glPixelStorei");
  table.read_buffer = gl_function("glReadBuffer");
  table.bind_buffer = gl_function("glBindBuffer");
  table.bind_framebuffer = gl_function("glBindFramebuffer");
  table.read_pixels = gl_function("glReadPixels");
  if (!table.read_pixels || !table.get || !table.pixel_store) link_fail("libGL lacks glReadPixels");
  return &table;
}

static int get(unsigned name) {
  int value = 0;
  gl()->get(name, &value);
  return value;
}

/* Read the back buffer (its colours or its depth, 4 bytes a pixel) whatever the game has bound, and leave everything as
 * it was. */
static void read_back(unsigned format, unsigned type, void *pixels, uint32_t row_length, uint32_t width,
                      uint32_t height) {
  int alignment = get(GL_PACK_ALIGNMENT), length = get(GL_PACK_ROW_LENGTH);
  int buffer = get(GL_PIXEL_PACK_BUFFER_BINDING), framebuffer = get(GL_READ_FRAMEBUFFER_BINDING);
  if (buffer) gl()->bind_buffer(GL_PIXEL_PACK_BUFFER, 0);
  if (framebuffer) gl()->bind_framebuffer(GL_READ_FRAMEBUFFER, 0);
  int source = get(GL_READ_BUFFER);
  if (source != GL_BACK) gl()->read_buffer(GL_BACK);
  gl()->pixel_store(GL_PACK_ALIGNMENT, 4);
  gl()->pixel_store(GL_PACK_ROW_LENGTH, (int)row_length);
  gl()->read_pixels(0, 0, (int)width, (int)height, format, type, pixels);
  gl()->pixel_store(GL_PACK_ALIGNMENT, alignment);
  gl()->pixel_store(GL_PACK_ROW_LENGTH, length);
  if (source != GL_BACK) gl()->read_buffer((unsigned)source);
  if (framebuffer) gl()->bind_framebuffer(GL_READ_FRAMEBUFFER, (unsigned)framebuffer);
  if (buffer) gl()->bind_buffer(GL_PIXEL_PACK_BUFFER, (unsigned)buffer);
}

/* One row of the picture from one row of pixels, as they are. */
static void copy_row(uint8_t *rgb, const struct bgra *pixels, uint32_t width) {
  for (uint32_t x = 0; x < width; x++) {
    rgb[3 * x] = pixels[x].r;
    rgb[3 * x + 1] = pixels[x].g;
    rgb[3 * x + 2] = pixels[x].b;
  }
}

/* The usual case, twice as large, written out so that the compiler makes vectors of it. */
static void average_row_2(uint8_t *rgb, const struct bgra *upper, const struct bgra *lower, uint32_t width) {
  for (uint32_t x = 0; x < width; x++) {
    const struct bgra a = upper[2 * x], b = upper[2 * x + 1], c = lower[2 * x], d = lower[2 * x + 1];
    rgb[3 * x] = (uint8_t)((a.r + b.r + c.r + d.r + 2) / 4);
    rgb[3 * x + 1] = (uint8_t)((a.g + b.g + c.g + d.g + 2) / 4);
    rgb[3 * x + 2] = (uint8_t)((a.b + b.b + c.b + d.b + 2) / 4);
  }
}

/* Each pixel of the row is the mean of a square of `scale` x `scale`. */
static void average_row(uint8_t *rgb, const struct bgra *pixels, uint32_t row_length, uint32_t width, uint32_t scale) {
  const uint32_t area = scale * scale;
  for (uint32_t x = 0; x < width; x++) {
    uint32_t r = area / 2, g = area / 2, b = area / 2; /* half: to round */
    for (uint32_t j = 0; j < scale; j++)
      for (uint32_t i = 0; i < scale; i++) {
        const struct bgra pixel = pixels[j * row_length + x * scale + i];
        r += pixel.r, g += pixel.g, b += pixel.b;
      }
    rgb[3 * x] = (uint8_t)(r / area), rgb[3 * x + 1] = (uint8_t)(g / area), rgb[3 * x + 2] = (uint8_t)(b / area);
  }
}

/* A window that is smaller than was asked for leaves the rest black. */
void picture_read(uint32_t window_width, uint32_t window_height) {
  const struct shared *s = link_settings();
  const uint32_t row_length = s->render_width, scale = s->render_width / s->width;
  const uint32_t width = window_width < s->render_width ? window_width : s->render_width;
  const uint32_t height = window_height < s->render_height ? window_height : s->render_height;
  static struct bgra *pixels;
  if (!pixels) pixels = calloc((size_t)s->render_width * s->render_height, sizeof *pixels);
  if (!pixels) link_fail("no memory for the picture");
  if (width < s->render_width || height < s->render_height)
    memset(pixels, 0, (size_t)s->render_width * s->render_height * sizeof *pixels);
  read_back(GL_BGRA, GL_UNSIGNED_INT_8_8_8_8_REV, pixels + (size_t)(s->render_height - height) * row_length, row_length,
            width, height);
  uint8_t *rgb = link_pixels();
  for (uint32_t y = 0; y < s->height; y++, rgb += 3 * s->width) { /* OpenGL's first row is the lowest */
    const struct bgra *row = pixels + (size_t)(s->height - 1 - y) * scale * row_length;
    if (scale == 1)
      copy_row(rgb, row, s->width);
    else if (scale == 2)
      average_row_2(rgb, row, row + row_length, s->width);
    else
      average_row(rgb, row, row_length, s->width, scale);
  }
}

/* A window that is smaller than was asked for leaves the rest as far away as can be. */
void picture_read_depth(uint32_t window_width, uint32_t window_height) {
  const struct shared *s = link_settings();
  const uint32_t width = window_width < s->render_width ? window_width : s->render_width;
  const uint32_t height = window_height < s->render_height ? window_height : s->render_height;
  float *depth = link_depth();
  if (width < s->render_width || height < s->render_height)
    for (size_t i = 0; i < (size_t)s->render_width * s->render_height; i++) depth[i] = 1.0f;
  read_back(GL_DEPTH_COMPONENT, GL_FLOAT, depth + (size_t)(s->render_height - height) * s->render_width,
            s->render_width, width, height);
}
