/* The connection to the controller: two descriptors inherited from it, named in LOCKSTEP_FDS as "socket,memory". */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int socket_fd = -1;
static struct shared *memory;

void link_fail(const char *why) {
  fprintf(stderr, "lockstep: %s\n", why);
  fflush(NULL);
  _exit(3);
}

bool link_is_open(void) { return memory != NULL; }
const struct shared *link_settings(void) { return memory; }
uint8_t *link_pixels(void) { return (uint8_t *)memory + memory->pixels_offset; }
float *link_depth(void) { return (float *)((uint8_t *)memory + memory->depth_offset); }

static struct shared *map_memory(int fd) {
  struct stat file;
  if (fstat(fd, &file) || (size_t)file.st_size < sizeof(struct shared)) link_fail("the shared memory is too small");
  void *start = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (start == MAP_FAILED) link_fail("the shared memory cannot be mapped");
  struct shared *shared = start;
  if (shared->magic != LOCKSTEP_MAGIC) link_fail("the shared memory is not the controller's");
  if (shared->version != LOCKSTEP_VERSION) link_fail("the controller speaks another version of the protocol");
  if (shared->pixels_offset + 3ull * shared->width * shared->height > (uint64_t)file.st_size)
    link_fail("the shared memory has no room for the picture");
  if (shared->depth_offset + 4ull * shared->render_width * shared->render_height > (uint64_t)file.st_size)
    link_fail("the shared memory has no room for the depth buffer");
  return shared;
}

static void send_packet(const void *message, size_t size) {
  ssize_t sent;
  do sent = send(socket_fd, message, size, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent != (ssize_t)size) _exit(0); /* the controller is gone, and so are we */
}

/* False where the shim was loaded without a controller: then it does nothing at all. */
bool link_open(void) {
  const char *names = getenv("LOCKSTEP_FDS");
  int memory_fd;
  if (!names || sscanf(names, "%d,%d", &socket_fd, &memory_fd) != 2) return false;
  memory = map_memory(memory_fd);
  close(memory_fd);
  fcntl(socket_fd, F_SETFD, FD_CLOEXEC); /* what the game starts must not keep the connection alive */
  struct hello_message hello = {LOCKSTEP_MAGIC, LOCKSTEP_VERSION, (uint32_t)getpid(), 0};
  send_packet(&hello, sizeof hello);
  return true;
}

void link_send_frame(const struct frame_message *message) { send_packet(message, sizeof *message); }

void link_receive_action(struct action_message *message) {
  ssize_t got;
  do got = recv(socket_fd, message, sizeof *message, 0);
  while (got < 0 && errno == EINTR);
  if (got <= 0) _exit(0);
  if (got != sizeof *message || message->magic != LOCKSTEP_MAGIC || message->num_events > LOCKSTEP_MAX_EVENTS)
    link_fail("a message of the controller is malformed");
}
