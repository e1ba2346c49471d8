/* The game's time: a clock that stands still while the controller thinks, and goes on by a fixed step with each frame.
 *
 * Before the first frame, time is real.  From then on:
 *  - the main thread (the one that draws) sees the virtual clock, one microsecond later with every look, so that loops
 *    that wait for time to pass end; its sleeps take no real time, they put the clock forward;
 *  - other threads (servers, loaders, sound) sleep until the virtual clock has come so far.
 */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL
#define MILLISECOND_NS 1000000LL
#define LOOK_NS 1000LL               /* what one look at the clock costs the main thread */
#define POLL_NS MILLISECOND_NS       /* how often a timed wait of another thread looks at the virtual clock, */
#define LONGEST_POLL_NS (16 * MILLISECOND_NS) /* and how seldom at one that stands */
#define FREE_SLEEP_NS (100 * MILLISECOND_NS) /* what the main thread may sleep in a frame before that takes real time */
#define BLOCKED_NS (200 * MILLISECOND_NS) /* a clock that stood so long, unpaused: the main thread waits for someone */

static atomic_bool running;   /* virtual time has begun */
static atomic_bool paused;    /* the main thread is waiting for the controller */
static _Atomic int64_t now_ns; /* virtual CLOCK_MONOTONIC */
static int64_t next_frame_ns;  /* what the clock shows at the coming frame, at least */
static int64_t realtime_ns;    /* CLOCK_REALTIME less CLOCK_MONOTONIC */
static pthread_t main_thread;

static pthread_mutex_t tick_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t tick = PTHREAD_COND_INITIALIZER;

typedef int (*timed_wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
typedef int (*clock_wait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

static timed_wait real_timed_wait(void) {
  static timed_wait real;
  if (!real) real = (timed_wait)real_versioned("pthread_cond_timedwait");
  return real;
}

static clock_wait real_clock_wait(void) {
  static clock_wait real;
  if (!real) real = (clock_wait)real_function("pthread_cond_clockwait");
  return real;
}

static int64_t to_ns(const struct timespec *t) { return t->tv_sec * SECOND_NS + t->tv_nsec; }
static struct timespec to_timespec(int64_t ns) {
  return (struct timespec){.tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS};
}

static int64_t real_now(clockid_t id) {
  REAL(clock_gettime);
  struct timespec t;
  real_clock_gettime(id, &t);
  return to_ns(&t);
}

bool on_main_thread(void) { return atomic_load(&running) && pthread_equal(pthread_self(), main_thread); }

int64_t clock_now(void) { return atomic_load(&now_ns); }

/* LOCKSTEP_EPOCH_S, what the game takes for the time of day when it starts: games seed their random numbers with it. */
static int64_t chosen_epoch_s(void) {
  const char *epoch = getenv("LOCKSTEP_EPOCH_S");
  return epoch ? atoll(epoch) : 0;
}

/* Virtual time begins; the calling thread is the main thread. */
void clock_start(void) {
  int64_t epoch_s = chosen_epoch_s();
  main_thread = pthread_self();
  atomic_store(&now_ns, real_now(CLOCK_MONOTONIC) / MILLISECOND_NS * MILLISECOND_NS);
  next_frame_ns = clock_now();
  realtime_ns = (epoch_s ? epoch_s * SECOND_NS : real_now(CLOCK_REALTIME)) - clock_now();
  atomic_store(&running, true);
}

void clock_pause(void) { atomic_store(&paused, true); }

/* The next frame begins.  A frame that took longer than its step (the game slept) is not made up for. */
void clock_advance(int64_t step_ns) {
  pthread_mutex_lock(&tick_mutex);
  next_frame_ns += step_ns;
  if (clock_now() < next_frame_ns)
    atomic_store(&now_ns, next_frame_ns);
  else
    next_frame_ns = clock_now();
  atomic_store(&paused, false);
  pthread_cond_broadcast(&tick);
  pthread_mutex_unlock(&tick_mutex);
}

static bool is_wall_clock(clockid_t id) { return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE; }

static bool is_virtual(clockid_t id) {
  return atomic_load(&running) && (is_wall_clock(id) || id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_RAW ||
                                   id == CLOCK_MONOTONIC_COARSE || id == CLOCK_BOOTTIME);
}

static int64_t virtual_time(clockid_t id) { return clock_now() + (is_wall_clock(id) ? realtime_ns : 0); }

/* A look at a clock, virtual or real. */
static int64_t look(clockid_t id) {
  if (!is_virtual(id)) return real_now(id);
  if (on_main_thread()) atomic_fetch_add(&now_ns, LOOK_NS);
  return virtual_time(id);
}

static void real_sleep(int64_t ns) {
  REAL(nanosleep);
  struct timespec t = to_timespec(ns);
  real_nanosleep(&t, NULL);
}

/* Wait until the virtual clock shows `until`.  If it stands although nobody paused it, the main thread may be waiting
 * for this very thread: then go on early. */
static void wait_for_clock(int64_t until) {
  pthread_mutex_lock(&tick_mutex);
  while (clock_now() < until) {
    int64_t before = clock_now();
    struct timespec t = to_timespec(real_now(CLOCK_MONOTONIC) + BLOCKED_NS);
    int result = real_clock_wait()(&tick, &tick_mutex, CLOCK_MONOTONIC, &t);
    if (result == ETIMEDOUT && clock_now() == before && !atomic_load(&paused)) break;
  }
  pthread_mutex_unlock(&tick_mutex);
}

/* The main thread's sleep only puts the clock forward.  But one that sleeps again and again within a frame waits for
 * another thread (a server that starts, say): that one needs real time, and the core. */
static void skip_time(int64_t ns) {
  if (clock_now() + ns > next_frame_ns + FREE_SLEEP_NS) real_sleep(ns < MILLISECOND_NS ? ns : MILLISECOND_NS);
  atomic_fetch_add(&now_ns, ns);
}

static void sleep_for(int64_t ns) {
  if (ns <= 0) return;
  if (!atomic_load(&running))
    real_sleep(ns);
  else if (on_main_thread())
    skip_time(ns);
  else
    wait_for_clock(clock_now() + ns);
}

/* ---- reading clocks ---- */

/* SDL counts its milliseconds from the moment it starts, by the raw clock, and rounds towards zero: with a start in the
 * middle of a second, frames of 40 ms are 39 or 41 now and then, at other places in each run.  So it starts on a second. */
EXPORT int clock_gettime(clockid_t id, struct timespec *t) {
  if (!is_virtual(id)) {
    REAL(clock_gettime);
    int result = real_clock_gettime(id, t);
    if (id == CLOCK_MONOTONIC_RAW && result == 0) t->tv_nsec = 0;
    return result;
  }
  *t = to_timespec(look(id));
  return 0;
}

EXPORT int gettimeofday(struct timeval *restrict t, void *restrict zone) {
  (void)zone;
  int64_t ns = look(CLOCK_REALTIME);
  *t = (struct timeval){.tv_sec = ns / SECOND_NS, .tv_usec = ns % SECOND_NS / 1000};
  return 0;
}

/* LOCKSTEP_TIME_S, what time() says from the first frame on: for a game that takes more seeds from it while it loads,
 * at a moment that depends on how fast that goes. */
static int64_t chosen_time_s(void) {
  const char *chosen = getenv("LOCKSTEP_TIME_S");
  return chosen ? atoll(chosen) : 0;
}

EXPORT time_t time(time_t *result) {
  int64_t chosen_s = atomic_load(&running) ? chosen_time_s() : chosen_epoch_s();
  time_t s = (time_t)(chosen_s ? chosen_s : look(CLOCK_REALTIME) / SECOND_NS);
  if (result) *result = s;
  return s;
}

/* ---- sleeping ---- */

EXPORT int nanosleep(const struct timespec *t, struct timespec *left) {
  (void)left;
  sleep_for(to_ns(t));
  return 0;
}

EXPORT int usleep(useconds_t us) {
  sleep_for(us * 1000LL);
  return 0;
}

EXPORT int clock_nanosleep(clockid_t id, int flags, const struct timespec *t, struct timespec *left) {
  (void)left;
  int64_t now = is_virtual(id) ? virtual_time(id) : real_now(id);
  sleep_for(flags & TIMER_ABSTIME ? to_ns(t) - now : to_ns(t));
  return 0;
}

/* ---- waiting for files: the main thread's time limits pass in no time ---- */

EXPORT int poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
  REAL(poll);
  if (timeout_ms <= 0 || !on_main_thread()) return real_poll(fds, count, timeout_ms);
  int ready = real_poll(fds, count, 1);
  if (!ready) sleep_for(timeout_ms * MILLISECOND_NS);
  return ready;
}

EXPORT int select(int count, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout) {
  REAL(select);
  if (!timeout || !on_main_thread()) return real_select(count, r, w, e, timeout);
  int64_t ns = timeout->tv_sec * SECOND_NS + timeout->tv_usec * 1000LL;
  struct timeval brief = {.tv_usec = ns > 0 ? 1000 : 0};
  int ready = real_select(count, r, w, e, &brief);
  if (!ready) sleep_for(ns);
  return ready;
}

/* ---- waiting for other threads with a limit in virtual time: short real waits until the clock is there ---- */

struct slices {
  int64_t deadline;
  clockid_t id;
  int64_t stood_since; /* real time at which the clock was seen to show `stood_at` */
  int64_t stood_at;
  int64_t length_ns; /* of a wait: longer and longer while the clock stands */
};

/* The end of the next short wait.  True: it is the last, the deadline is reached (or, as in wait_for_clock, the clock
 * stands because the main thread is blocked). */
static bool next_slice(struct slices *s, struct timespec *until) {
  int64_t real = real_now(CLOCK_MONOTONIC), now = clock_now();
  bool over = virtual_time(s->id) >= s->deadline;
  if (now != s->stood_at) s->length_ns = POLL_NS;
  else if (s->length_ns < LONGEST_POLL_NS) s->length_ns *= 2;
  if (now != s->stood_at || atomic_load(&paused)) s->stood_at = now, s->stood_since = real;
  if (real - s->stood_since > BLOCKED_NS) over = true;
  *until = to_timespec(real + (over ? 0 : s->length_ns));
  return over;
}

static int wait_condition(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t id, int64_t deadline) {
  struct slices slices = {.deadline = deadline, .id = id};
  for (;;) {
    struct timespec until;
    bool over = next_slice(&slices, &until);
    int result = real_clock_wait()(condition, mutex, CLOCK_MONOTONIC, &until);
    if (result != ETIMEDOUT || over) return result;
    if (on_main_thread()) atomic_fetch_add(&now_ns, POLL_NS);
  }
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *t) {
  if (!atomic_load(&running)) return real_timed_wait()(condition, mutex, t);
  /* Which clock the condition was made for is not to be seen; a time since 1970 is much longer than one since boot. */
  clockid_t id = to_ns(t) < realtime_ns / 2 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
  return wait_condition(condition, mutex, id, to_ns(t));
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t id,
                                  const struct timespec *t) {
  if (!is_virtual(id)) return real_clock_wait()(condition, mutex, id, t);
  return wait_condition(condition, mutex, id, to_ns(t));
}

EXPORT int sem_clockwait(sem_t *semaphore, clockid_t id, const struct timespec *t) {
  REAL(sem_clockwait);
  if (!is_virtual(id)) return real_sem_clockwait(semaphore, id, t);
  struct slices slices = {.deadline = to_ns(t), .id = id};
  for (;;) {
    struct timespec until;
    bool over = next_slice(&slices, &until);
    int result = real_sem_clockwait(semaphore, CLOCK_MONOTONIC, &until);
    if (result == 0 || errno != ETIMEDOUT || over) return result;
    if (on_main_thread()) atomic_fetch_add(&now_ns, POLL_NS);
  }
}

EXPORT int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict t) {
  return sem_clockwait(semaphore, CLOCK_REALTIME, t);
}
