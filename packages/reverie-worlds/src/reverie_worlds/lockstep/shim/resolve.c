/* Finding the functions behind those that the shim replaces. */
#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *(*dlsym_function)(void *, const char *);

/* Symbol versions that mark the current form of a function, on x86-64 old and new, and on arm64. */
static const char *const DLSYM_VERSIONS[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17", NULL};
static const char *const CONDITION_VERSIONS[] = {"GLIBC_2.3.2", "GLIBC_2.17", NULL};

static void *first_version(const char *name, const char *const *versions) {
  for (; *versions; versions++) {
    void *found = dlvsym(RTLD_NEXT, name, *versions);
    if (found) return found;
  }
  return NULL;
}

/* dlsym itself is replaced, so the real one is found by its version. */
static dlsym_function real_dlsym(void) {
  static dlsym_function real;
  if (!real) real = (dlsym_function)first_version("dlsym", DLSYM_VERSIONS);
  if (!real) {
    fprintf(stderr, "lockstep: this C library has no dlsym that is known here\n");
    _Exit(3);
  }
  return real;
}

void *real_function(const char *name) { return real_dlsym()(RTLD_NEXT, name); }

/* The C library keeps an ancient pthread_cond_timedwait under the same name, and plain dlsym may return that one. */
void *real_versioned(const char *name) {
  void *found = first_version(name, CONDITION_VERSIONS);
  return found ? found : real_function(name);
}

/* A library may be loaded by the game at any time, and privately: look in the library itself. */
void *library_function(const char *library, const char *name) {
  void *opened = dlopen(library, RTLD_LAZY);
  return opened ? real_dlsym()(opened, name) : NULL;
}

void *gl_function(const char *name) { return library_function("libGL.so.1", name); }

void glXSwapBuffers(void *display, unsigned long drawable);
unsigned eglSwapBuffers(void *display, void *surface);
typedef void (*any_function)(void);
any_function glXGetProcAddress(const unsigned char *name);
any_function glXGetProcAddressARB(const unsigned char *name);

/* What a game that asks for a function by name must get instead of the real one; NULL: the real one. */
static void *replacement(const char *name) {
  if (!strcmp(name, "glXSwapBuffers")) return (void *)glXSwapBuffers;
  if (!strcmp(name, "eglSwapBuffers")) return (void *)eglSwapBuffers;
  if (!strcmp(name, "glXGetProcAddress")) return (void *)glXGetProcAddress;
  if (!strcmp(name, "glXGetProcAddressARB")) return (void *)glXGetProcAddressARB;
  return camera_hook(name);
}

EXPORT void *dlsym(void *handle, const char *name) {
  /* With RTLD_NEXT a library asks for what lies behind itself: that must not be us. */
  void *ours = handle == RTLD_NEXT || name[0] == '_' ? NULL : replacement(name);
  return ours ? ours : real_dlsym()(handle, name);
}

EXPORT any_function glXGetProcAddressARB(const unsigned char *name) {
  static any_function (*real)(const unsigned char *);
  if (!real) real = (any_function(*)(const unsigned char *))gl_function("glXGetProcAddressARB");
  void *ours = replacement((const char *)name);
  return ours ? (any_function)ours : real(name);
}

EXPORT any_function glXGetProcAddress(const unsigned char *name) { return glXGetProcAddressARB(name); }
