// The directories that are watched, by the kernel's number of each, and those that are yet to be looked at.
#ifndef WATCH_TABLE_H
#define WATCH_TABLE_H

#include "files.h"

#define MOST_WATCHED 8192
#define TABLE_BUCKETS 4096

struct watched {
  struct watched *next;
  int number;
  // relative to the root; empty for the root
  char *path;
};

struct table {
  struct watched *buckets[TABLE_BUCKETS];
  size_t count;
};

// A number that is known already gets the path.
void table_put(struct table *, int number, const char *path);
// NULL if it is not watched.
const char *table_path(const struct table *, int number);
void table_remove(struct table *, int number);
// Takes one that is at the path or below it, and returns its number; -1 if there is none.
int table_take_below(struct table *, const char *path);
void table_clear(struct table *);

// Paths, first in, first out.
struct queue {
  char **paths;
  size_t start;
  size_t count;
  size_t room;
};

void queue_push(struct queue *, const char *path);
// To be freed; NULL if it is empty, and then nothing is held.
char *queue_shift(struct queue *);

#endif
