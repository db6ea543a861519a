// TREE_WRITE: entries are made below a directory, over what is there. An entry's path is walked by directories that are open, never through a link. The daemon has judged the
// entries; here only what the kernel alone can tell is judged.

#include "tree-place.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_ENTRY 1
#define DIRECTORY_ENTRY 2
#define SYMLINK_ENTRY 3
#define HARDLINK_ENTRY 4

struct entry {
  uint8_t kind;
  char *path;
  char *target;
  uint32_t mode;
  uint64_t size;
  struct timespec mtime;
};

struct unpacking {
  int connection;
  struct tree *tree;
  uint8_t *buffer;
  uint64_t entries;
  uint64_t bytes;
};

static const struct tree_failure none = {0, ""};
static const struct tree_failure gone = {-1, ""};

static struct tree_failure failed(int error, const char *operation) { return (struct tree_failure){error, operation}; }

static struct tree_failure take_content(struct unpacking *unpacking, int file, uint64_t size) {
  for (uint64_t left = size; left > 0;) {
    uint8_t type;
    struct reader payload;
    if (!receive_frame(unpacking->connection, unpacking->buffer, &type, &payload)) return gone;
    size_t count = (size_t)(payload.end - payload.at);
    if (type != F_DATA || count > left) return failed(EPROTO, "request");
    int error = write_all(file, payload.at, count);
    if (error != 0) return failed(error, "write");
    left -= count;
  }
  return none;
}

static struct tree_failure make_file(struct unpacking *unpacking, const struct entry *entry, int directory, const char *name) {
  struct tree_failure failure = tree_may_replace(directory, name);
  if (failure.error != 0) return failure;
  struct draft draft;
  int error = draft_begin(&draft, directory);
  if (error != 0) return failed(error, "create");
  failure = take_content(unpacking, draft.file, entry->size);
  const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, entry->mtime};
  if (failure.error == 0 && (fchmod(draft.file, entry->mode & 0777) != 0 || futimens(draft.file, times) != 0)) failure = failed(errno, "chmod");
  if (failure.error == 0 && (error = draft_place(&draft, name, true)) != 0) failure = failed(error, "rename");
  draft_drop(&draft);
  unpacking->bytes += entry->size;
  return failure;
}

static struct tree_failure make_symlink(const struct entry *entry, int directory, const char *name) {
  struct tree_failure failure = tree_make_room(directory, name);
  if (failure.error != 0) return failure;
  if (symlinkat(entry->target, directory, name) != 0) return failed(errno, "symlink");
  const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, entry->mtime};
  utimensat(directory, name, times, AT_SYMLINK_NOFOLLOW);
  return none;
}

static struct tree_failure make_hardlink(struct unpacking *unpacking, const struct entry *entry, int directory, const char *name) {
  struct place from;
  struct stat found;
  struct stat there;
  if (!tree_find(unpacking->tree, entry->target, &from) || fstatat(from.directory, from.name, &found, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(found.st_mode))
    return failed(ENOENT, "target");
  struct tree_failure failure = none;
  bool is_there = fstatat(directory, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && there.st_dev == found.st_dev && there.st_ino == found.st_ino;
  if (!is_there) failure = tree_make_room(directory, name);
  if (!is_there && failure.error == 0 && linkat(from.directory, from.name, directory, name, 0) != 0) failure = failed(errno, "link");
  close(from.directory);
  return failure;
}

static struct tree_failure make_entry(struct unpacking *unpacking, const struct entry *entry) {
  if (entry->kind == DIRECTORY_ENTRY) return *entry->path == 0 ? none : tree_make_directory(unpacking->tree, entry->path, entry->mode & 0777, entry->mtime);
  int directory;
  const char *name;
  struct tree_failure failure = tree_enter(unpacking->tree, entry->path, &directory, &name);
  if (failure.error != 0) return failure;
  switch (entry->kind) {
    case FILE_ENTRY:
      return make_file(unpacking, entry, directory, name);
    case SYMLINK_ENTRY:
      return make_symlink(entry, directory, name);
    case HARDLINK_ENTRY:
      return make_hardlink(unpacking, entry, directory, name);
    default:
      return failed(EPROTO, "request");
  }
}

// Whole seconds downwards, so that times before 1970 are what they are.
static struct timespec time_of(int64_t nanoseconds) {
  int64_t seconds = nanoseconds / 1000000000;
  if (nanoseconds % 1000000000 < 0) seconds--;
  return (struct timespec){.tv_sec = seconds, .tv_nsec = (long)(nanoseconds - seconds * 1000000000)};
}

static struct tree_failure take_entry(struct unpacking *unpacking, struct reader *payload, char path[MOST_PATH]) {
  struct entry entry;
  entry.kind = read_u8(payload);
  entry.path = read_str(payload);
  entry.target = read_str(payload);
  entry.mode = read_u32(payload);
  entry.size = read_u64(payload);
  entry.mtime = time_of(read_i64(payload));
  struct tree_failure failure = failed(EPROTO, "request");
  if (!payload->bad && strlen(entry.path) < MOST_PATH) {
    strcpy(path, entry.path);
    failure = make_entry(unpacking, &entry);
  }
  free(entry.path);
  free(entry.target);
  unpacking->entries++;
  return failure;
}

static struct tree_failure take_entries(struct unpacking *unpacking, char path[MOST_PATH]) {
  for (;;) {
    uint8_t type;
    struct reader payload;
    path[0] = 0;
    if (!receive_frame(unpacking->connection, unpacking->buffer, &type, &payload)) return gone;
    if (type == F_EOF) return none;
    struct tree_failure failure = type == F_ENTRY ? take_entry(unpacking, &payload, path) : failed(EPROTO, "request");
    if (failure.error != 0) return failure;
  }
}

void serve_tree_write(int connection, struct reader *request) {
  umask(0);
  signal(SIGXFSZ, SIG_IGN);
  char *root = read_str(request);
  if (request->bad) return refuse(connection, EPROTO, "request", "");
  int error = make_directory(root, 0755, true);
  if (error != 0 && error != EEXIST) return refuse(connection, error, "mkdir", root);
  int opened = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (opened < 0) return refuse(connection, errno, "open", root);
  struct unpacking unpacking = {.connection = connection, .tree = tree_begin(opened), .buffer = allocate(MOST_FRAME)};
  struct writer ready = {0};
  write_begin(&ready, F_READY);
  if (!send_frame(connection, &ready)) return;
  char path[MOST_PATH];
  struct tree_failure failure = take_entries(&unpacking, path);
  struct tree_failure end = tree_end(unpacking.tree);
  if (failure.error == 0) failure = end;
  if (failure.error == gone.error) return;
  if (failure.error != 0) return refuse(connection, failure.error, failure.operation, path);
  send_done(connection, unpacking.entries, unpacking.bytes);
}
