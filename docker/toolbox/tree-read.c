// TREE_READ: what is at a path and below it, each entry as it is found. The walk goes by directories that are open, and follows no link below the path.

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILE_ENTRY 1
#define DIRECTORY_ENTRY 2
#define SYMLINK_ENTRY 3
#define HARDLINK_ENTRY 4

// First names of files with several that are remembered; beyond it each name is sent as a file of its own. Unit: bytes.
#define MOST_LINKED_BYTES (8 * 1024 * 1024)
#define LINK_BUCKETS 4096
#define LOOK_EVERY 1024

// Made by the kernel, for this sandbox as it runs now, or the toolbox's own.
static const char *const left_out_roots[] = {"/proc", "/sys", "/dev", "/.sandboxd"};
#define LEFT_OUT_ROOTS (sizeof left_out_roots / sizeof *left_out_roots)

struct first_name {
  struct first_name *next;
  dev_t device;
  ino_t inode;
  char path[];
};

struct walk {
  struct outbox outbox;
  uint64_t most_entries;
  uint32_t most_depth;
  uint64_t entries;
  uint64_t left_out;
  uint64_t steps;
  uint8_t *bytes;
  struct first_name *linked[LINK_BUCKETS];
  size_t linked_bytes;
  struct stat roots[LEFT_OUT_ROOTS];
  // relative, as it is sent
  char path[MOST_PATH];
};

// Whether the walk goes on. If not, the other side was told why, or is gone.
static bool stop(struct walk *walk, int error, const char *operation) {
  if (outbox_flush(&walk->outbox)) refuse(walk->outbox.connection, error, operation, walk->path);
  return false;
}

static bool send_entry(struct walk *walk, uint8_t kind, const char *target, const struct stat *found, uint64_t size) {
  if (walk->entries == walk->most_entries) return stop(walk, E2BIG, "entries");
  walk->entries++;
  struct writer *frame = &walk->outbox.frame;
  write_begin(frame, F_ENTRY);
  write_u8(frame, kind);
  write_str(frame, walk->path);
  write_str(frame, target);
  write_u32(frame, found->st_mode & 0777);
  write_u64(frame, size);
  write_i64(frame, (int64_t)found->st_mtim.tv_sec * 1000000000 + found->st_mtim.tv_nsec);
  return outbox_add(&walk->outbox);
}

// The name under which the file was sent before, or NULL; then this one is remembered.
static const char *first_name(struct walk *walk, const struct stat *found) {
  struct first_name **bucket = &walk->linked[(found->st_ino ^ found->st_dev * 31) % LINK_BUCKETS];
  for (struct first_name *one = *bucket; one != NULL; one = one->next)
    if (one->device == found->st_dev && one->inode == found->st_ino) return one->path;
  size_t size = sizeof(struct first_name) + strlen(walk->path) + 1;
  if (walk->linked_bytes + size > MOST_LINKED_BYTES) return NULL;
  walk->linked_bytes += size;
  struct first_name *one = allocate(size);
  *one = (struct first_name){.next = *bucket, .device = found->st_dev, .inode = found->st_ino};
  strcpy(one->path, walk->path);
  *bucket = one;
  return NULL;
}

// Exactly so many bytes as were announced: what was cut off meanwhile is zeros, what was added is left out.
static bool send_content(struct walk *walk, int file, uint64_t size) {
  bool is_over = false;
  for (uint64_t left = size; left > 0;) {
    size_t wanted = left > MOST_DATA ? MOST_DATA : (size_t)left;
    ssize_t count = is_over ? 0 : read(file, walk->bytes, wanted);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return stop(walk, errno, "read");
    if (count == 0) {
      is_over = true;
      count = (ssize_t)wanted;
      memset(walk->bytes, 0, wanted);
    }
    write_begin(&walk->outbox.frame, F_DATA);
    write_bytes(&walk->outbox.frame, walk->bytes, (size_t)count);
    if (!outbox_add(&walk->outbox)) return false;
    left -= (uint64_t)count;
  }
  return true;
}

// What is there when it is opened need not be what was there when it was read. Nothing then, as for what may not be read.
static bool leave_out(struct walk *walk, int error) {
  if (error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENXIO) return true;
  if (error != EACCES && error != EPERM) return stop(walk, error, "open");
  walk->left_out++;
  return true;
}

static bool send_file(struct walk *walk, int directory, const char *name, int flags) {
  int file = openat(directory, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags);
  if (file < 0) return leave_out(walk, errno);
  struct stat found;
  bool goes_on = true;
  if (fstat(file, &found) != 0) goes_on = stop(walk, errno, "stat");
  else if (!S_ISREG(found.st_mode)) walk->left_out++;
  else {
    const char *first = found.st_nlink > 1 ? first_name(walk, &found) : NULL;
    if (first != NULL) goes_on = send_entry(walk, HARDLINK_ENTRY, first, &found, 0);
    else goes_on = send_entry(walk, FILE_ENTRY, "", &found, (uint64_t)found.st_size) && send_content(walk, file, (uint64_t)found.st_size);
  }
  close(file);
  return goes_on;
}

static bool send_link(struct walk *walk, int directory, const char *name, const struct stat *found) {
  char *target = link_target(directory, name);
  bool goes_on = *target == 0 || send_entry(walk, SYMLINK_ENTRY, target, found, 0);
  free(target);
  return goes_on;
}

static bool is_left_out(const struct walk *walk, const struct stat *found) {
  for (size_t i = 0; i < LEFT_OUT_ROOTS; i++)
    if (walk->roots[i].st_ino == found->st_ino && walk->roots[i].st_dev == found->st_dev) return true;
  return false;
}

static bool send_content_of(struct walk *walk, int directory, uint32_t depth);

static bool send_directory(struct walk *walk, int parent, const char *name, const struct stat *seen, uint32_t depth) {
  if (is_left_out(walk, seen)) return true;
  if (depth > walk->most_depth) return stop(walk, E2BIG, "depth");
  int opened = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (opened < 0) {
    int error = errno;
    // one that may not be read is there all the same
    if (error == EACCES && !send_entry(walk, DIRECTORY_ENTRY, "", seen, 0)) return false;
    return leave_out(walk, error);
  }
  struct stat found;
  if (fstat(opened, &found) != 0) return stop(walk, errno, "stat");
  return send_entry(walk, DIRECTORY_ENTRY, "", &found, 0) && send_content_of(walk, opened, depth);
}

static bool send_one(struct walk *walk, int directory, const char *name, uint32_t depth) {
  struct stat found;
  if (fstatat(directory, name, &found, AT_SYMLINK_NOFOLLOW) != 0) return leave_out(walk, errno);
  if (S_ISDIR(found.st_mode)) return send_directory(walk, directory, name, &found, depth + 1);
  if (S_ISREG(found.st_mode)) return send_file(walk, directory, name, O_NOFOLLOW);
  if (S_ISLNK(found.st_mode)) return send_link(walk, directory, name, &found);
  walk->left_out++;
  return true;
}

// Takes the directory, and closes it.
static bool send_content_of(struct walk *walk, int directory, uint32_t depth) {
  DIR *opened = fdopendir(directory);
  if (opened == NULL) _exit(70);
  size_t prefix = strlen(walk->path);
  bool goes_on = true;
  errno = 0;
  for (struct dirent *entry = readdir(opened); goes_on && entry != NULL; errno = 0, entry = readdir(opened)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    // what the toolbox is writing itself
    if (strncmp(entry->d_name, DRAFT_PREFIX, strlen(DRAFT_PREFIX)) == 0) continue;
    if (++walk->steps % LOOK_EVERY == 0 && is_gone(walk->outbox.connection)) goes_on = false;
    else if (prefix + 1 + strlen(entry->d_name) >= MOST_PATH) goes_on = stop(walk, E2BIG, "path");
    else {
      snprintf(walk->path + prefix, MOST_PATH - prefix, "%s%s", prefix == 0 ? "" : "/", entry->d_name);
      goes_on = send_one(walk, directory, entry->d_name, depth);
      if (goes_on) walk->path[prefix] = 0;
    }
    if (!goes_on) break;
  }
  if (goes_on && errno != 0) goes_on = stop(walk, errno, "read");
  closedir(opened);
  return goes_on;
}

void serve_tree_read(int connection, struct reader *request) {
  char *path = read_str(request);
  struct walk *walk = allocate(sizeof *walk);
  *walk = (struct walk){.bytes = allocate(MOST_DATA)};
  walk->most_entries = read_u64(request);
  walk->most_depth = read_u32(request);
  if (request->bad) return refuse(connection, EPROTO, "request", "");
  outbox_begin(&walk->outbox, connection);
  send_ahead(connection);
  for (size_t i = 0; i < LEFT_OUT_ROOTS; i++)
    if (lstat(left_out_roots[i], &walk->roots[i]) != 0) walk->roots[i] = (struct stat){0};
  struct stat found;
  if (stat(path, &found) != 0) return refuse(connection, errno, "stat", path);
  bool goes_on;
  if (S_ISDIR(found.st_mode)) {
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return refuse(connection, errno, "open", path);
    goes_on = send_content_of(walk, directory, 0);
  } else if (S_ISREG(found.st_mode)) {
    int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file < 0) return refuse(connection, errno, "open", path);
    close(file);
    const char *name = strrchr(path, '/');
    snprintf(walk->path, sizeof walk->path, "%s", name == NULL ? path : name + 1);
    goes_on = send_file(walk, AT_FDCWD, path, 0);
  } else {
    return refuse(connection, EINVAL, "type", path);
  }
  if (goes_on && outbox_flush(&walk->outbox)) send_done(connection, walk->entries, walk->left_out);
}
