/* Runs a command for as long as somebody wants it:  keeper PIPE_FD SIGNAL GRACE_MS FOLDER COMMAND [ARGUMENT...]
 *
 * The controller holds the other end of the pipe.  When that is closed, or the controller dies in any way (kill -9
 * too), the command and all that it started get SIGNAL and, GRACE_MS later, SIGKILL; then FOLDER (unless empty) is
 * removed.  Should the keeper itself be killed, the kernel sends SIGNAL to the command.  Ends with the command's status.
 *
 * The controller cannot simply ask the kernel for that: PR_SET_PDEATHSIG is sent when the parent's *thread* ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAP_MS 1000

enum { ARG_PIPE = 1, ARG_SIGNAL, ARG_GRACE, ARG_FOLDER, ARG_COMMAND };

static int open_process(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

static void start(char **command, int pipe_fd, int signal_number, pid_t keeper) {
  close(pipe_fd);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, signal_number);
  if (getppid() != keeper) _exit(127); /* the keeper died before the request was made */
  execvp(command[0], command);
  fprintf(stderr, "%s: %s\n", command[0], strerror(errno));
  _exit(127);
}

/* Only the pipe stays open: a descriptor kept here would keep a connection of the command alive. */
static void close_all_but(int pipe_fd) {
  if (pipe_fd > 3) syscall(SYS_close_range, 3, pipe_fd - 1, 0);
  syscall(SYS_close_range, pipe_fd + 1, ~0u, 0);
}

static void stop(pid_t child, int signal_number, int grace_ms) {
  int child_fd = open_process(child);
  kill(-child, signal_number);
  kill(child, signal_number); /* it may not have come to setpgid yet */
  struct pollfd ended = {child_fd, POLLIN, 0};
  if (signal_number != SIGKILL && child_fd >= 0) poll(&ended, 1, grace_ms);
  kill(-child, SIGKILL);
  kill(child, SIGKILL);
}

/* What the command left became ours: see it off, or it stays in the process table where nobody else does. */
static void reap(void) {
  for (int waited_ms = 0; waited_ms < REAP_MS; waited_ms++) {
    pid_t ended;
    while ((ended = waitpid(-1, NULL, WNOHANG)) > 0) continue;
    if (ended < 0) return;
    usleep(1000);
  }
}

int main(int count, char **arguments) {
  if (count <= ARG_COMMAND) {
    fprintf(stderr, "keeper: PIPE_FD SIGNAL GRACE_MS FOLDER COMMAND...\n");
    return 2;
  }
  int pipe_fd = atoi(arguments[ARG_PIPE]), signal_number = atoi(arguments[ARG_SIGNAL]);
  setsid(); /* a Ctrl-C in the terminal is for the controller alone */
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  pid_t keeper = getpid(), child = fork();
  if (child < 0) return 126;
  if (child == 0) start(arguments + ARG_COMMAND, pipe_fd, signal_number, keeper);
  setpgid(child, child); /* on both sides: whoever comes first */
  close_all_but(pipe_fd);
  int parent_fd = open_process(getppid()); /* should the parent be gone already, the pipe is at its end */
  int child_fd = open_process(child);

  struct pollfd watched[] = {{pipe_fd, POLLIN, 0}, {parent_fd, POLLIN, 0}, {child_fd, POLLIN, 0}};
  while (poll(watched, 3, -1) < 0 && errno == EINTR) continue;
  int unwanted = watched[0].revents || watched[1].revents;
  if (unwanted) stop(child, signal_number, atoi(arguments[ARG_GRACE]));
  int status = 0;
  waitpid(child, &status, 0);
  kill(-child, SIGKILL); /* what it started and left */
  reap();
  if (unwanted && *arguments[ARG_FOLDER]) execlp("rm", "rm", "-rf", "--", arguments[ARG_FOLDER], (char *)NULL);
  if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  return WEXITSTATUS(status);
}
