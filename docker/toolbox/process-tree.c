// The descendants of the keeper, by /proc. It is a subreaper: those that lost their parents, or left group and session, are among them.

#include "keeper.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A fork that is under way shows in the next round; this many end any that is not a race with somebody who hinders it on purpose.
#define MOST_ROUNDS 64

enum kinship { UNKNOWN, OURS, OTHERS };

struct process {
  pid_t pid;
  pid_t parent;
  unsigned long long started;
  char state;
  enum kinship kinship;
};

struct processes {
  struct process *at;
  size_t count;
  size_t room;
};

static void add(struct processes *list, struct process process) {
  if (list->count == list->room) {
    list->room = list->room == 0 ? 64 : list->room * 2;
    list->at = realloc(list->at, list->room * sizeof *list->at);
    if (list->at == NULL) _exit(70);
  }
  list->at[list->count++] = process;
}

static bool look_at(int proc, const char *name, struct process *process) {
  char path[32];
  char text[1024];
  snprintf(path, sizeof path, "%.20s/stat", name);
  int file = openat(proc, path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  if (length <= 0) return false;
  text[length] = 0;
  // the name before may have anything in it, brackets too
  const char *rest = strrchr(text, ')');
  int parent;
  *process = (struct process){.pid = atoi(name)};
  if (rest == NULL) return false;
  if (sscanf(rest + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &process->state, &parent, &process->started) != 3) return false;
  process->parent = parent;
  return true;
}

static int by_pid(const void *a, const void *b) {
  pid_t left = ((const struct process *)a)->pid;
  pid_t right = ((const struct process *)b)->pid;
  return (left > right) - (left < right);
}

static struct process *find(const struct processes *list, pid_t pid) {
  if (list->count == 0) return NULL;
  return bsearch(&(struct process){.pid = pid}, list->at, list->count, sizeof *list->at, by_pid);
}

// Up the line of parents to one that is known, and down again. False if a parent is missing: it ended while the list was made.
static bool decide_kinship(const struct processes *list, struct process *from) {
  struct process *last = from;
  size_t steps = 0;
  while (last->kinship == UNKNOWN && steps++ <= list->count) {
    if (last->parent == 0) {
      last->kinship = OTHERS;
      break;
    }
    struct process *parent = find(list, last->parent);
    if (parent == NULL) return false;
    last = parent;
  }
  if (last->kinship == UNKNOWN) return false;
  enum kinship kinship = last->kinship;
  for (struct process *at = from; at != NULL && at->kinship == UNKNOWN; at = find(list, at->parent)) at->kinship = kinship;
  return true;
}

// All processes that can be seen, sorted by pid. False if /proc can't be read.
static bool list_processes(struct processes *list) {
  list->count = 0;
  DIR *proc = opendir("/proc");
  if (proc == NULL) return false;
  for (struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
    struct process process;
    if (isdigit((unsigned char)entry->d_name[0]) && look_at(dirfd(proc), entry->d_name, &process)) add(list, process);
  }
  closedir(proc);
  if (list->count > 0) qsort(list->at, list->count, sizeof *list->at, by_pid);
  return true;
}

static bool is_listed(const struct processes *list, const struct process *process) {
  for (size_t i = 0; i < list->count; i++) {
    if (list->at[i].pid == process->pid && list->at[i].started == process->started) return true;
  }
  return false;
}

size_t signal_tree(int signal_number) {
  struct processes all = {0};
  struct processes done = {0};
  bool is_stable = false;
  for (int round = 0; round < MOST_ROUNDS && !is_stable; round++) {
    if (!list_processes(&all)) break;
    struct process *self = find(&all, getpid());
    if (self == NULL) break;
    self->kinship = OURS;
    is_stable = true;
    for (size_t i = 0; i < all.count; i++) {
      struct process *process = &all.at[i];
      if (!decide_kinship(&all, process)) is_stable = false;
      if (process->kinship != OURS || process == self || process->state == 'Z' || process->state == 'X') continue;
      if (is_listed(&done, process)) continue;
      is_stable = false;
      // one that ended since it was listed is not of this uid any more, or nobody: the number comes back only after all others were used
      kill(process->pid, signal_number);
      add(&done, *process);
    }
  }
  size_t count = done.count;
  free(all.at);
  free(done.at);
  return count;
}
