// The tree that is unpacked into: where the next entry goes.
#ifndef TREE_PLACE_H
#define TREE_PLACE_H

#include "files.h"

#include <time.h>

// Why something was not done; `error` 0 if it was. Operation "entry": the entry cannot be there (ELOOP: its path leads through what is no directory, EISDIR: a directory is in its place).
struct tree_failure {
  int error;
  const char *operation;
};

struct tree;

// Takes the directory.
struct tree *tree_begin(int root);
// The directory that an entry's path leads to, made where it is missing, open until the next call, and the name in it, a part of the path.
struct tree_failure tree_enter(struct tree *, const char *path, int *directory, const char **name);
// Makes a directory, in place of what is no directory. It gets mode and time when it is left.
struct tree_failure tree_make_directory(struct tree *, const char *path, mode_t mode, struct timespec mtime);
// Where a path leads through directories alone, with its directory open; false if it does not.
bool tree_find(struct tree *, const char *path, struct place *);
// Whether a file or a link may come to where a name is.
struct tree_failure tree_may_replace(int directory, const char *name);
// As that, and what is there goes.
struct tree_failure tree_make_room(int directory, const char *name);
// Leaves all directories.
struct tree_failure tree_end(struct tree *);

#endif
