/* What a game takes from the machine that it runs on: whose home it is in, where chance begins, what it may write. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Some games ask the user database where their settings belong, not HOME: they get what HOME says. */
EXPORT struct passwd *getpwuid(uid_t user) {
  REAL(getpwuid);
  static struct passwd entry;
  struct passwd *found = real_getpwuid(user);
  if (!found || !getenv("LOCKSTEP_FDS") || !getenv("HOME")) return found;
  entry = *found;
  entry.pw_dir = getenv("HOME");
  return &entry;
}

/* LOCKSTEP_SEED stands in for every seed that the game thinks of, such as the time of day. */
static unsigned chosen_seed(unsigned seed) {
  const char *chosen = getenv("LOCKSTEP_SEED");
  return chosen ? (unsigned)strtoul(chosen, NULL, 10) : seed;
}

EXPORT void srand(unsigned seed) {
  REAL(srand);
  real_srand(chosen_seed(seed));
}

EXPORT void srandom(unsigned seed) {
  REAL(srandom);
  real_srandom(chosen_seed(seed));
}

/* Played by root, a game could write among its own data, and the next one that starts would be another game. */
static bool is_forbidden(const char *path, const char *mode) {
  return getenv("LOCKSTEP_FDS") && strpbrk(mode, "wa+") && !strncmp(path, "/usr/", 5);
}

EXPORT FILE *fopen(const char *restrict path, const char *restrict mode) {
  REAL(fopen);
  if (!is_forbidden(path, mode)) return real_fopen(path, mode);
  errno = EACCES;
  return NULL;
}

EXPORT FILE *fopen64(const char *restrict path, const char *restrict mode) {
  REAL(fopen64);
  if (!is_forbidden(path, mode)) return real_fopen64(path, mode);
  errno = EACCES;
  return NULL;
}
