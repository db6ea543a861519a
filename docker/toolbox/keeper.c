// The keeper of a process: one loop that waits for all there is. It is what the worker of START becomes.

#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ULL
// Memory of output goes back to the system after that long without any.
#define TRIM_NS NS_PER_S

enum { P_CHILDREN, P_LISTENER, P_LINK, P_INPUT, P_SOURCES, P_CALLERS = P_SOURCES + 2, P_COUNT = P_CALLERS + MOST_CALLERS };

moment now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (moment)time.tv_sec * NS_PER_S + (moment)time.tv_nsec;
}

moment after(uint64_t ns) {
  moment from = now();
  return ns > INT64_MAX - from ? INT64_MAX : from + ns;
}

static bool is_due(moment at, moment time) { return at != 0 && time >= at; }

static void be_on_time(struct keeper *keeper) {
  moment time = now();
  if (is_due(keeper->timeout_at, time)) end_process(keeper, CAUSE_TIMEOUT, keeper->grace_ns);
  if (is_due(keeper->orphan_at, time)) end_process(keeper, CAUSE_ORPHANED, keeper->grace_ns);
  if (is_due(keeper->ending_next, time)) go_on_ending(keeper);
  if (is_due(keeper->repaint_at, time)) finish_repaint(keeper);
  if (keeper->stopped_at != 0 && time - keeper->stopped_at >= keeper->wait_ns) end_waiting(keeper);
  for (size_t i = 0; i < MOST_CALLERS; i++) {
    if (is_due(keeper->callers[i].until, time)) hang_up(&keeper->callers[i]);
  }
  if (is_due(keeper->trim_at, time)) {
    keeper->trim_at = 0;
    malloc_trim(0);
  }
}

static void earlier(moment *first, moment at) {
  if (at != 0 && at < *first) *first = at;
}

// How long nothing is to be done but what the descriptors ask for.
static struct timespec idle_time(const struct keeper *keeper) {
  moment first = INT64_MAX;
  moment time = now();
  earlier(&first, keeper->timeout_at);
  earlier(&first, keeper->orphan_at);
  if (keeper->ending != NOT_ENDING) earlier(&first, keeper->ending_next);
  earlier(&first, keeper->repaint_at);
  earlier(&first, keeper->trim_at);
  if (keeper->stopped_at != 0) earlier(&first, keeper->wait_ns > INT64_MAX - keeper->stopped_at ? INT64_MAX : keeper->stopped_at + keeper->wait_ns);
  for (size_t i = 0; i < MOST_CALLERS; i++) earlier(&first, keeper->callers[i].until);
  uint64_t ns = first > time ? first - time : 0;
  return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static bool wants_source(const struct keeper *keeper, const struct source *source) {
  if (source->fd < 0 || !may_read(keeper)) return false;
  return !keeper->has_ended || keeper->exit_is_told || source->left > 0;
}

static short link_events(const struct keeper *keeper) {
  return (short)((may_hear(keeper) ? POLLIN : 0) | (keeper->link_blocked ? POLLOUT : 0));
}

static void ask(const struct keeper *keeper, int children, struct pollfd *asked) {
  asked[P_CHILDREN] = (struct pollfd){children, POLLIN, 0};
  asked[P_LISTENER] = (struct pollfd){keeper->listener, POLLIN, 0};
  asked[P_LINK] = (struct pollfd){keeper->link.socket, link_events(keeper), 0};
  // a pipe that nobody reads any more tells so unasked; a terminal does by its output
  bool is_pipe = keeper->input != keeper->terminal;
  asked[P_INPUT] = (struct pollfd){keeper->input_blocked || is_pipe ? keeper->input : -1, keeper->input_blocked ? POLLOUT : 0, 0};
  for (size_t i = 0; i < 2; i++) {
    const struct source *source = &keeper->sources[i];
    asked[P_SOURCES + i] = (struct pollfd){wants_source(keeper, source) ? source->fd : -1, POLLIN, 0};
  }
  for (size_t i = 0; i < MOST_CALLERS; i++) asked[P_CALLERS + i] = (struct pollfd){keeper->callers[i].socket, POLLIN, 0};
}

static void take_children(struct keeper *keeper, int children) {
  struct signalfd_siginfo told;
  while (read(children, &told, sizeof told) > 0) continue;
  reap(keeper);
}

static void answer(struct keeper *keeper, int children, const struct pollfd *asked) {
  if (asked[P_LINK].revents & (POLLIN | POLLHUP | POLLERR)) hear_link(keeper);
  if (asked[P_INPUT].revents & POLLERR && keeper->input != keeper->terminal) end_input(keeper);
  else if (asked[P_INPUT].revents != 0) write_input(keeper);
  for (size_t i = 0; i < 2; i++) {
    if (asked[P_SOURCES + i].revents == 0 || !wants_source(keeper, &keeper->sources[i])) continue;
    read_source(keeper, &keeper->sources[i]);
    keeper->trim_at = after(TRIM_NS);
  }
  if (asked[P_CHILDREN].revents != 0) take_children(keeper, children);
  for (size_t i = 0; i < MOST_CALLERS; i++) {
    if (asked[P_CALLERS + i].revents != 0) hear_caller(keeper, &keeper->callers[i]);
  }
  if (asked[P_LISTENER].revents != 0) accept_caller(keeper);
}

// The daemon has the exit, so nobody asks for this process any more.
static void withdraw(struct keeper *keeper) {
  if (keeper->listener < 0) return;
  unlink(keeper->path);
  close(keeper->listener);
  keeper->listener = -1;
  for (size_t i = 0; i < MOST_CALLERS; i++) hang_up(&keeper->callers[i]);
  detach(keeper);
}

static bool is_over(const struct keeper *keeper) {
  bool is_held = keeper->sources[0].fd >= 0 || keeper->sources[1].fd >= 0;
  return keeper->is_forgotten && !is_held && keeper->ending == NOT_ENDING;
}

static void look_after(struct keeper *keeper, int children) {
  while (!is_over(keeper)) {
    struct pollfd asked[P_COUNT];
    ask(keeper, children, asked);
    struct timespec time = idle_time(keeper);
    if (ppoll(asked, P_COUNT, &time, NULL) > 0) answer(keeper, children, asked);
    be_on_time(keeper);
    if (is_drained(keeper) && !keeper->exit_is_told) tell_exit(keeper);
    if (keeper->is_forgotten) withdraw(keeper);
    if (!keeper->link_blocked) send_to_link(keeper);
    else if (asked[P_LINK].revents & POLLOUT) send_to_link(keeper);
  }
}

// Apart, and the parent of all that descends from it.
static int settle(void) {
  sigset_t children;
  settle_apart();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_BLOCK, &children, NULL);
  return signalfd(-1, &children, SFD_NONBLOCK | SFD_CLOEXEC);
}

// Blocks of output stay for the next until they are trimmed.
static void set_memory(void) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 32 << 20);
}

void keep_process(int connection, const char *directory, struct reader *request) {
  struct keeper keeper = {.listener = -1, .input = -1, .terminal = -1, .terminal_slave = -1, .link = {.socket = -1}};
  for (size_t i = 0; i < 2; i++) keeper.sources[i].fd = -1;
  for (size_t i = 0; i < MOST_CALLERS; i++) keeper.callers[i].socket = -1;
  set_memory();
  int children = settle();
  if (children < 0) return send_error(connection, errno, "fork", "");
  keeper.has_children = true;
  if (!start_process(&keeper, directory, connection, request)) return;
  if (keeper.timeout_ns != 0) keeper.timeout_at = after(keeper.timeout_ns);
  keeper.last_sequence = 1;
  fcntl(connection, F_SETFL, O_NONBLOCK);
  attach(&keeper, &(struct connection){.socket = connection}, 0);
  send_to_link(&keeper);
  look_after(&keeper, children);
}
