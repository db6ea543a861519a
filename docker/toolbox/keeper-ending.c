// Signals, and the end: how the process is ended with all its descendants, and how its end is noticed.

#include "keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MOST_SIGNAL 64
// Between two looks for what was not killed yet, and how long that goes on where SIGNAL asked for it.
#define KILL_AGAIN_NS 10000000
#define KILL_SIGNAL_NS 10000000000

static int64_t wall_clock(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// As shells tell it, too: a program that takes care of a signal before it ends says so by its code.
static bool was_asked(const struct keeper *keeper) {
  int signal_number = 0;
  if (WIFSIGNALED(keeper->wait_status)) signal_number = WTERMSIG(keeper->wait_status);
  else if (WEXITSTATUS(keeper->wait_status) > 128) signal_number = WEXITSTATUS(keeper->wait_status) - 128;
  return signal_number > 0 && signal_number <= MOST_SIGNAL && (keeper->signals_sent >> (signal_number - 1) & 1) != 0;
}

static void note_end(struct keeper *keeper, int status, const struct rusage *usage) {
  keeper->has_ended = true;
  keeper->ended = now();
  keeper->ended_ns = wall_clock();
  keeper->wait_status = status;
  keeper->usage = *usage;
  keeper->timeout_at = 0;
  keeper->orphan_at = 0;
  keeper->repaint_at = 0;
  if (keeper->cause == CAUSE_SELF && was_asked(keeper)) keeper->cause = CAUSE_SIGNAL;
  end_input(keeper);
  if (keeper->terminal_slave >= 0) close(keeper->terminal_slave);
  keeper->terminal_slave = -1;
  measure_sources(keeper);
}

void reap(struct keeper *keeper) {
  for (;;) {
    int status;
    struct rusage usage;
    pid_t pid = wait4(-1, &status, WNOHANG, &usage);
    if (pid < 0 && errno == EINTR) continue;
    if (pid <= 0) {
      // without a child it has no descendants: those that lost their parents become its children
      keeper->has_children = pid == 0;
      if (!keeper->has_children) keeper->ending = NOT_ENDING;
      return;
    }
    if (pid == keeper->pid && !keeper->has_ended) note_end(keeper, status, &usage);
  }
}

// Stopped ones hold their places, so that a fork bomb cannot outrun it.
static void kill_tree(void) {
  signal_tree(SIGSTOP);
  signal_tree(SIGKILL);
}

static void start_killing(struct keeper *keeper, moment until) {
  keeper->ending = KILLING;
  keeper->ending_next = after(KILL_AGAIN_NS);
  keeper->ending_until = until;
  kill_tree();
}

void end_process(struct keeper *keeper, enum cause cause, uint64_t grace_ns) {
  if (!keeper->has_children) return;
  if (!keeper->has_ended && keeper->cause == CAUSE_SELF) keeper->cause = cause;
  if (keeper->ending == KILLING) return;
  keeper->timeout_at = 0;
  keeper->orphan_at = 0;
  moment kill_at = after(grace_ns);
  if (keeper->ending == NOT_ENDING || kill_at < keeper->ending_next) keeper->ending_next = kill_at;
  keeper->ending = ASKED;
  signal_tree(SIGTERM);
  // who was stopped takes note as well
  signal_tree(SIGCONT);
}

void go_on_ending(struct keeper *keeper) {
  if (keeper->ending == NOT_ENDING || now() < keeper->ending_next) return;
  if (keeper->ending == KILLING && keeper->ending_until != 0 && now() >= keeper->ending_until) keeper->ending = NOT_ENDING;
  else start_killing(keeper, keeper->ending == KILLING ? keeper->ending_until : 0);
}

static int signal_group(const struct keeper *keeper, int signal_number) {
  pid_t group = keeper->terminal < 0 ? -1 : tcgetpgrp(keeper->terminal);
  if (group > 1 && kill(-group, signal_number) == 0) return 0;
  return kill(-keeper->pid, signal_number) == 0 ? 0 : errno;
}

static int signal_descendants(struct keeper *keeper, int signal_number) {
  if (signal_number != SIGKILL) return signal_tree(signal_number) > 0 ? 0 : ESRCH;
  if (!keeper->has_children) return ESRCH;
  if (keeper->ending != KILLING) start_killing(keeper, after(KILL_SIGNAL_NS));
  return 0;
}

int signal_process(struct keeper *keeper, int signal_number, enum scope scope) {
  if (signal_number < 1 || signal_number > MOST_SIGNAL) return EINVAL;
  // the number is nobody's after its end, or another's
  if (keeper->has_ended && scope != SCOPE_TREE) return ESRCH;
  keeper->signals_sent |= (uint64_t)1 << (signal_number - 1);
  switch (scope) {
    case SCOPE_PROCESS:
      return kill(keeper->pid, signal_number) == 0 ? 0 : errno;
    case SCOPE_GROUP:
      return signal_group(keeper, signal_number);
    case SCOPE_TREE:
      return signal_descendants(keeper, signal_number);
  }
  return EINVAL;
}
