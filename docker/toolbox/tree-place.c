// The tree that is unpacked into, as a stack of open directories. Archives come in order of the tree, so few are opened twice, and nothing has to be remembered of
// those that were left.

#include "tree-place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_LEVELS 128

struct level {
  int directory;
  char name[NAME_MAX + 1];
  // what it gets when it is left: until then its owner must be able to write into it
  bool has_mode;
  bool has_time;
  mode_t mode;
  struct timespec mtime;
};

struct tree {
  int root;
  size_t depth;
  struct level levels[MOST_LEVELS];
};

static const struct tree_failure none = {0, ""};

static struct tree_failure failed(int error, const char *operation) { return (struct tree_failure){error, operation}; }

struct tree *tree_begin(int root) {
  struct tree *tree = allocate(sizeof *tree);
  tree->root = root;
  tree->depth = 0;
  return tree;
}

static int innermost(const struct tree *tree) { return tree->depth == 0 ? tree->root : tree->levels[tree->depth - 1].directory; }

static struct tree_failure leave_until(struct tree *tree, size_t depth) {
  struct tree_failure failure = none;
  while (tree->depth > depth) {
    struct level *level = &tree->levels[--tree->depth];
    // somebody else's, and writable for all, stays as it is
    if (level->has_mode && fchmod(level->directory, level->mode) != 0 && errno != EPERM) failure = failed(errno, "chmod");
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, level->mtime};
    if (level->has_time && futimens(level->directory, times) != 0 && errno != EPERM) failure = failed(errno, "chmod");
    close(level->directory);
  }
  return failure;
}

// Opens a directory, also one that its owner shut for itself: it is opened up for that, and shut again when it is left.
static int open_own(int parent, const char *name, struct level *level) {
  int place = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (place < 0) return errno;
  struct stat found;
  if (fstat(place, &found) != 0) return errno;
  *level = (struct level){0};
  if ((found.st_mode & 0700) != 0700) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", place);
    level->has_mode = chmod(path, (found.st_mode & 07777) | 0700) == 0;
    level->mode = found.st_mode & 07777;
  }
  level->directory = openat(place, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = level->directory < 0 ? errno : 0;
  close(place);
  strcpy(level->name, name);
  return error;
}

static struct tree_failure step(struct tree *tree, const char *name) {
  if (tree->depth == MOST_LEVELS) return failed(EPROTO, "request");
  int parent = innermost(tree);
  struct level *level = &tree->levels[tree->depth];
  int error = open_own(parent, name, level);
  if (error == ENOENT) {
    if (mkdirat(parent, name, 0755) != 0 && errno != EEXIST) return failed(errno, "mkdir");
    error = open_own(parent, name, level);
  }
  if (error == ENOTDIR || error == ELOOP) return failed(ELOOP, "entry");
  if (error != 0) return failed(error, "open");
  tree->depth++;
  return none;
}

// The next component of a path, and where the path goes on; the daemon sends none that is empty, "." or "..".
static const char *component(const char *path, char name[NAME_MAX + 1]) {
  size_t length = strcspn(path, "/");
  if (length == 0 || length > NAME_MAX) return NULL;
  memcpy(name, path, length);
  name[length] = 0;
  if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return NULL;
  return path[length] == '/' ? path + length + 1 : path + length;
}

// Goes to the directory of all components but the last one, which is returned.
static struct tree_failure walk(struct tree *tree, const char *path, const char **last) {
  const char *slash = strrchr(path, '/');
  const char *end = slash == NULL ? path : slash + 1;
  char name[NAME_MAX + 1];
  size_t depth = 0;
  const char *at = path;
  while (at < end) {
    const char *next = component(at, name);
    if (next == NULL) return failed(EPROTO, "request");
    if (depth >= tree->depth || strcmp(tree->levels[depth].name, name) != 0) {
      struct tree_failure failure = leave_until(tree, depth);
      if (failure.error == 0) failure = step(tree, name);
      if (failure.error != 0) return failure;
    }
    depth++;
    at = next;
  }
  if (component(end, name) == NULL) return failed(EPROTO, "request");
  *last = end;
  return depth < tree->depth ? leave_until(tree, depth) : none;
}

struct tree_failure tree_enter(struct tree *tree, const char *path, int *directory, const char **name) {
  struct tree_failure failure = walk(tree, path, name);
  *directory = innermost(tree);
  return failure;
}

struct tree_failure tree_make_directory(struct tree *tree, const char *path, mode_t mode, struct timespec mtime) {
  const char *name;
  struct tree_failure failure = walk(tree, path, &name);
  if (failure.error != 0) return failure;
  struct stat found;
  int parent = innermost(tree);
  if (fstatat(parent, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(found.st_mode) && unlinkat(parent, name, 0) != 0) return failed(errno, "unlink");
  failure = step(tree, name);
  if (failure.error != 0) return failure;
  struct level *level = &tree->levels[tree->depth - 1];
  level->has_mode = level->has_time = true;
  level->mode = mode;
  level->mtime = mtime;
  return none;
}

bool tree_find(struct tree *tree, const char *path, struct place *place) {
  int directory = fcntl(tree->root, F_DUPFD_CLOEXEC, 0);
  for (const char *at = path; directory >= 0;) {
    const char *next = component(at, place->name);
    if (next == NULL) break;
    if (*next == 0) {
      place->directory = directory;
      return true;
    }
    int opened = openat(directory, place->name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    close(directory);
    directory = opened;
    at = next;
  }
  if (directory >= 0) close(directory);
  return false;
}

struct tree_failure tree_may_replace(int directory, const char *name) {
  struct stat found;
  return fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode) ? failed(EISDIR, "entry") : none;
}

struct tree_failure tree_make_room(int directory, const char *name) {
  struct tree_failure failure = tree_may_replace(directory, name);
  if (failure.error == 0 && unlinkat(directory, name, 0) != 0 && errno != ENOENT) failure = failed(errno, "unlink");
  return failure;
}

struct tree_failure tree_end(struct tree *tree) { return leave_until(tree, 0); }
