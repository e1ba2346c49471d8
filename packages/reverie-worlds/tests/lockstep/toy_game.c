/* A game for the tests of the shim: three bands whose colours say what it saw.
 *
 *   toy_game WIDTH HEIGHT [MODE FRAME]        MODE: exit, crash, hang, fork (in that frame), warp
 *
 * Upper third: red is the key w, green the left button, blue the low byte of the pointer's way to the right.
 *   (warp: as games with a free look, by putting the pointer back to the middle each frame.)
 * Middle third: red and green are the milliseconds since the start (high and low byte), blue the right half's mark.
 * Lower third: red counts the 20 ms sleeps of a second thread, green the key Up.
 * The depth buffer is 0.25, 0.5 and 0.75 in the three bands, less a thousandth where the key w is held.
 * OpenGL and GLX are declared here, so that their headers are not needed. */
#define _GNU_SOURCE
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <X11/keysym.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct context *GLXContext;
XVisualInfo *glXChooseVisual(Display *, int, int *);
GLXContext glXCreateContext(Display *, XVisualInfo *, GLXContext, int);
int glXMakeCurrent(Display *, unsigned long, GLXContext);
void glXSwapBuffers(Display *, unsigned long);
void glClearColor(float, float, float, float);
void glClearDepth(double);
void glClear(unsigned);
void glEnable(unsigned);
void glScissor(int, int, int, int);
void glMatrixMode(unsigned);
void glLoadIdentity(void);
void glFrustum(double, double, double, double, double, double);
void glTranslatef(float, float, float);
void glBegin(unsigned);
void glEnd(void);

enum { MODELVIEW = 0x1700, PROJECTION = 0x1701, SCISSOR_TEST = 0x0C11, COLOR_BUFFER_BIT = 0x4000, DEPTH_BUFFER_BIT = 0x100, TRIANGLES = 4 };

static volatile int naps;

static void *nap(void *unused) {
  for (;;) {
    usleep(20000);
    naps++;
  }
  return unused;
}

static long milliseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void band(int y, int width, int height, int r, int g, int b, double depth) {
  glScissor(0, y, width, height);
  glClearColor(r / 255.0f, g / 255.0f, b / 255.0f, 1);
  glClearDepth(depth);
  glClear(COLOR_BUFFER_BIT | DEPTH_BUFFER_BIT);
}

static void go_wrong(const char *mode) {
  printf("about to %s\n", mode);
  fflush(stdout);
  if (!strcmp(mode, "exit")) exit(7);
  if (!strcmp(mode, "crash")) abort();
  if (!strcmp(mode, "hang"))
    for (volatile int i = 0;; i++) continue;
  if (!strcmp(mode, "fork") && fork() == 0) execlp("sleep", "sleep", "1000", (char *)NULL);
}

int main(int count, char **arguments) {
  int width = atoi(arguments[1]), height = atoi(arguments[2]);
  Display *display = XOpenDisplay(NULL);
  int wanted[] = {4 /* RGBA */, 5 /* double buffer */, 8, 8, 9, 8, 10, 8, 12 /* depth */, 24, 0};
  XVisualInfo *visual = glXChooseVisual(display, DefaultScreen(display), wanted);
  Window root = DefaultRootWindow(display);
  XSetWindowAttributes about = {.colormap = XCreateColormap(display, root, visual->visual, AllocNone)};
  about.event_mask = KeyPressMask | KeyReleaseMask | ButtonPressMask | ButtonReleaseMask | PointerMotionMask;
  Window window = XCreateWindow(display, root, 0, 0, width, height, 0, visual->depth, InputOutput, visual->visual,
                                CWColormap | CWEventMask, &about);
  XMapWindow(display, window);
  glXMakeCurrent(display, window, glXCreateContext(display, visual, NULL, True));
  glEnable(SCISSOR_TEST);
  int w = 0, up = 0, button = 0, way = 0, last = 0, known = 0;
  long start = 0;
  int warps = count > 3 && !strcmp(arguments[3], "warp");
  for (int frame = 0;; frame++) {
    while (XPending(display)) {
      XEvent event;
      XNextEvent(display, &event);
      if (event.type == KeyPress || event.type == KeyRelease) {
        KeySym symbol = XLookupKeysym(&event.xkey, 0);
        if (symbol == XK_w) w = event.type == KeyPress;
        if (symbol == XK_Up) up = event.type == KeyPress;
      }
      if (event.type == ButtonPress || event.type == ButtonRelease) button = event.type == ButtonPress;
      if (event.type == MotionNotify && !warps) {
        if (known) way += event.xmotion.x_root - last;
        last = event.xmotion.x_root, known = 1;
      }
    }
    if (warps) {
      Window unused_window;
      int x, y, unused;
      unsigned mask;
      XQueryPointer(display, window, &unused_window, &unused_window, &unused, &unused, &x, &y, &mask);
      if (frame > 0) way += x - width / 2;
      XWarpPointer(display, None, window, 0, 0, 0, 0, width / 2, height / 2);
      XFlush(display);
    }
    if (frame == 1) {
      pthread_t thread;
      pthread_create(&thread, NULL, nap, NULL);
      start = milliseconds();
    }
    long now = frame ? milliseconds() - start : 0;
    int third = height / 3;
    band(height - third, width, third, 255 * w, 255 * button, way & 255, 0.25 - 0.001 * w);
    band(third, width, height - 2 * third, (int)(now >> 8), (int)(now & 255), 0, 0.5 - 0.001 * w);
    glScissor(width / 2, third, width - width / 2, height - 2 * third);
    glClearColor((now >> 8) / 255.0f, (now & 255) / 255.0f, 1, 1);
    glClear(COLOR_BUFFER_BIT);
    band(0, width, third, naps & 255, 255 * up, 0, 0.75 - 0.001 * w);
    glMatrixMode(PROJECTION);
    glLoadIdentity();
    glFrustum(-1, 1, -1, 1, 1, 100);
    glMatrixMode(MODELVIEW);
    glLoadIdentity();
    glTranslatef(1, 2, (float)-frame - 1);
    glBegin(TRIANGLES);
    glEnd();
    if (count > 4 && frame == atoi(arguments[4])) go_wrong(arguments[3]);
    glXSwapBuffers(display, window);
  }
}
