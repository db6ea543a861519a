// REMOVE: a file, a link, an empty directory, or a tree. A tree is gone through by directories that are open, never through a link; few are open at a time, however deep it is.

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Directories that stay open; those further above are found again through "..".
#define MOST_OPEN 32
// How often a directory is read again in which somebody makes files faster than they are removed.
#define MOST_PASSES 100
#define LOOK_EVERY 256

struct level {
  DIR *opened;
  dev_t device;
  ino_t inode;
  char *name;
  uint32_t passes;
};

struct walk {
  int connection;
  const char *root;
  struct level *levels;
  size_t depth;
  size_t room;
  dev_t device;
  uint64_t steps;
};

// Where the walk is, for an error.
static char *path_here(const struct walk *walk, const char *name) {
  char *path = allocate(MOST_PATH);
  size_t length = strlen(walk->root);
  if (length >= MOST_PATH) length = MOST_PATH - 1;
  memcpy(path, walk->root, length);
  for (size_t i = 1; i <= walk->depth; i++) {
    const char *part = i == walk->depth ? name : walk->levels[i].name;
    size_t size = strlen(part);
    if (length + 1 + size >= MOST_PATH) break;
    path[length++] = '/';
    memcpy(path + length, part, size);
    length += size;
  }
  path[length] = 0;
  return path;
}

static bool stop(const struct walk *walk, int error, const char *operation, const char *name) {
  refuse(walk->connection, error, operation, path_here(walk, name));
  return false;
}

static int enter(struct walk *walk, int parent, const char *name) {
  int opened = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (opened < 0) return errno;
  struct stat found;
  if (fstat(opened, &found) != 0) return errno;
  if (walk->depth == 0) walk->device = found.st_dev;
  // another file system is mounted there
  if (found.st_dev != walk->device) {
    close(opened);
    return EBUSY;
  }
  if (walk->depth == walk->room) {
    walk->room = walk->room == 0 ? 64 : walk->room * 2;
    walk->levels = realloc(walk->levels, walk->room * sizeof(struct level));
    if (walk->levels == NULL) _exit(70);
  }
  if (walk->depth >= MOST_OPEN) {
    struct level *above = &walk->levels[walk->depth - MOST_OPEN];
    if (above->opened != NULL) closedir(above->opened);
    above->opened = NULL;
  }
  struct level *level = &walk->levels[walk->depth++];
  *level = (struct level){.opened = fdopendir(opened), .device = found.st_dev, .inode = found.st_ino, .name = strdup(name)};
  if (level->opened == NULL || level->name == NULL) _exit(70);
  return 0;
}

// The directory above, opened again where it was closed. It must be the one that the walk came from.
static int leave(struct walk *walk) {
  struct level *left = &walk->levels[--walk->depth];
  int error = 0;
  if (walk->depth > 0 && walk->levels[walk->depth - 1].opened == NULL) {
    struct level *above = &walk->levels[walk->depth - 1];
    struct stat found;
    int opened = openat(dirfd(left->opened), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) error = errno;
    else if (fstat(opened, &found) != 0 || found.st_dev != above->device || found.st_ino != above->inode) error = ESTALE;
    else if ((above->opened = fdopendir(opened)) == NULL) _exit(70);
  }
  closedir(left->opened);
  return error;
}

static bool remove_entry(struct walk *walk, int directory, const struct dirent *entry) {
  bool is_directory = entry->d_type == DT_DIR;
  if (!is_directory) {
    if (unlinkat(directory, entry->d_name, 0) == 0 || errno == ENOENT) return true;
    if (errno != EISDIR) return stop(walk, errno, "unlink", entry->d_name);
  }
  if (unlinkat(directory, entry->d_name, AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
  if (errno != ENOTEMPTY && errno != EEXIST) return stop(walk, errno, "rmdir", entry->d_name);
  int error = enter(walk, directory, entry->d_name);
  return error == 0 || error == ENOENT ? true : stop(walk, error, "open", entry->d_name);
}

// The innermost directory is empty now, as far as was seen.
static bool remove_directory(struct walk *walk) {
  char *name = walk->levels[walk->depth - 1].name;
  uint32_t passes = walk->levels[walk->depth - 1].passes;
  int error = leave(walk);
  if (error != 0) return stop(walk, error, "open", name);
  int parent = walk->depth == 0 ? AT_FDCWD : dirfd(walk->levels[walk->depth - 1].opened);
  if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT) {
    free(name);
    return true;
  }
  if ((errno != ENOTEMPTY && errno != EEXIST) || passes == MOST_PASSES) return stop(walk, errno, "rmdir", name);
  error = enter(walk, parent, name);
  if (error != 0) return stop(walk, error, "open", name);
  walk->levels[walk->depth - 1].passes = passes + 1;
  return true;
}

static bool remove_tree(struct walk *walk) {
  int error = enter(walk, AT_FDCWD, walk->root);
  if (error != 0) return stop(walk, error, "open", "");
  while (walk->depth > 0) {
    if (++walk->steps % LOOK_EVERY == 0 && is_gone(walk->connection)) return false;
    DIR *opened = walk->levels[walk->depth - 1].opened;
    errno = 0;
    struct dirent *entry = readdir(opened);
    if (entry == NULL && errno != 0) return stop(walk, errno, "read", "");
    if (entry == NULL) {
      if (!remove_directory(walk)) return false;
    } else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
      if (!remove_entry(walk, dirfd(opened), entry)) return false;
    }
  }
  return true;
}

void serve_remove(int connection, const char *path, bool recursive) {
  struct stat found;
  // asked first: on a file system that is read-only the kernel does not say whether there was anything to remove
  if (fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) return refuse(connection, errno, "stat", path);
    return send_done(connection, 0, 0);
  }
  if (!S_ISDIR(found.st_mode)) {
    if (unlink(path) != 0 && errno != ENOENT) return refuse(connection, errno, "unlink", path);
    return send_done(connection, 0, 0);
  }
  if (rmdir(path) != 0 && errno != ENOENT) {
    if (!recursive || (errno != ENOTEMPTY && errno != EEXIST)) return refuse(connection, errno, "rmdir", path);
    struct walk walk = {.connection = connection, .root = path};
    if (!remove_tree(&walk)) return;
  }
  send_done(connection, 0, 0);
}
