// WATCH: what changes in a directory, by inotify. The kernel's queue is always drained; what a slow daemon does not take is dropped, and told as OVERFLOW.

#include "watch-table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

// Frames that the daemon has not taken. Unit: bytes.
#define MOST_WAITING (1024 * 1024)
// With this much room again OVERFLOW is told, and what follows.
#define ENOUGH_ROOM (MOST_WAITING / 2)

#define CREATED 1
#define WRITTEN 2
#define ATTRIBUTES 3
#define REMOVED 4

#define EVENTS (IN_CREATE | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct watch {
  int connection;
  int events;
  bool recursive;
  char root[MOST_PATH];
  struct table table;
  struct writer frame;
  uint8_t *waiting;
  size_t start;
  size_t length;
  // something was dropped, and that was not told
  bool overflowed;
  // the root is gone
  bool is_over;
};

static void put(struct watch *watch) {
  write_end(&watch->frame);
  if (watch->start + watch->length + watch->frame.length > MOST_WAITING) {
    memmove(watch->waiting, watch->waiting + watch->start, watch->length);
    watch->start = 0;
  }
  if (watch->length + watch->frame.length > MOST_WAITING) {
    watch->overflowed = true;
    return;
  }
  memcpy(watch->waiting + watch->start + watch->length, watch->frame.bytes, watch->frame.length);
  watch->length += watch->frame.length;
}

// A relative path below the root; empty for the root itself.
static void tell(struct watch *watch, uint8_t type, bool is_directory, const char *path) {
  // nothing in between is told until it was told that something is missing
  if (watch->overflowed) return;
  char whole[2 * MOST_PATH];
  snprintf(whole, sizeof whole, "%s%s%s", watch->root, *path == 0 || strcmp(watch->root, "/") == 0 ? "" : "/", path);
  write_begin(&watch->frame, F_CHANGE);
  write_u8(&watch->frame, type);
  write_u8(&watch->frame, is_directory ? 1 : 0);
  write_str(&watch->frame, whole);
  put(watch);
}

static int open_directory(struct watch *watch, const char *path) {
  char whole[2 * MOST_PATH];
  snprintf(whole, sizeof whole, "%s/%s", watch->root, path);
  return open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (*path == 0 ? 0 : O_NOFOLLOW));
}

// Returns 0 or an error; what is gone, or may not be read, is none.
static int add_one(struct watch *watch, int directory, const char *path) {
  if (watch->table.count == MOST_WATCHED) return ENOSPC;
  char itself[32];
  snprintf(itself, sizeof itself, "/proc/self/fd/%d", directory);
  int number = inotify_add_watch(watch->events, itself, EVENTS);
  if (number >= 0) {
    table_put(&watch->table, number, path);
    return 0;
  }
  return *path == 0 || errno == ENOSPC || errno == ENOMEM ? errno : 0;
}

static bool is_draft(const char *name) { return strncmp(name, DRAFT_PREFIX, strlen(DRAFT_PREFIX)) == 0; }

// Looks through a directory that is watched now: what was in it before, if that is to be told, and the directories that are to be watched next.
static void look_through(struct watch *watch, int directory, const char *path, bool tells, struct queue *next) {
  DIR *opened = fdopendir(directory);
  if (opened == NULL) return;
  for (struct dirent *entry = readdir(opened); entry != NULL; entry = readdir(opened)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_draft(entry->d_name)) continue;
    struct stat found;
    bool is_directory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN && fstatat(dirfd(opened), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0) is_directory = S_ISDIR(found.st_mode);
    char below[MOST_PATH];
    int length = snprintf(below, sizeof below, "%s%s%s", path, *path == 0 ? "" : "/", entry->d_name);
    // longer than a path can be: nobody could name it
    if (length < 0 || (size_t)length >= sizeof below) continue;
    if (tells) tell(watch, CREATED, is_directory, below);
    if (is_directory && watch->recursive) queue_push(next, below);
  }
  closedir(opened);
}

// Watches a directory, and those below it. Returns 0 or an error.
static int add(struct watch *watch, const char *path, bool tells) {
  struct queue queue = {0};
  queue_push(&queue, path);
  int error = 0;
  for (char *next = queue_shift(&queue); next != NULL; next = queue_shift(&queue)) {
    int directory = error == 0 ? open_directory(watch, next) : -1;
    if (directory < 0 && error == 0 && *next == 0) error = errno;
    if (directory >= 0) {
      error = add_one(watch, directory, next);
      if (error == 0 && (watch->recursive || tells)) look_through(watch, directory, next, tells, &queue);
      else close(directory);
    }
    free(next);
  }
  return error;
}

// After the kernel dropped events: what is watched need not be what is there.
static void begin_again(struct watch *watch) {
  struct table before = watch->table;
  watch->table = (struct table){0};
  // the same directory has the same number again
  if (add(watch, "", false) != 0) watch->overflowed = true;
  for (size_t bucket = 0; bucket < TABLE_BUCKETS; bucket++)
    for (struct watched *one = before.buckets[bucket]; one != NULL; one = one->next)
      if (table_path(&watch->table, one->number) == NULL) inotify_rm_watch(watch->events, one->number);
  table_clear(&before);
}

static void forget_below(struct watch *watch, const char *path) {
  int number;
  while ((number = table_take_below(&watch->table, path)) >= 0) inotify_rm_watch(watch->events, number);
}

// A file without a name, such as a draft, is told of by the kernel under the number of its inode. It is no file of the directory's.
static bool is_nameless(struct watch *watch, const char *name, const char *path) {
  if (name[0] != '#' || name[1] == 0 || name[1 + strspn(name + 1, "0123456789")] != 0) return false;
  char whole[2 * MOST_PATH];
  struct stat found;
  snprintf(whole, sizeof whole, "%s/%s", watch->root, path);
  return lstat(whole, &found) != 0;
}

static void take_root_event(struct watch *watch, uint32_t mask) {
  if (mask & IN_ATTRIB) tell(watch, ATTRIBUTES, true, "");
  if (!(mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))) return;
  tell(watch, REMOVED, true, "");
  watch->is_over = true;
}

static void take_event(struct watch *watch, const struct inotify_event *event) {
  if (event->mask & IN_Q_OVERFLOW) {
    watch->overflowed = true;
    return begin_again(watch);
  }
  const char *directory = table_path(&watch->table, event->wd);
  if (directory == NULL) return;
  if (event->mask & IN_IGNORED) return table_remove(&watch->table, event->wd);
  // of a directory itself: the one above tells it too, but for the root
  if (event->len == 0) {
    if (*directory == 0) take_root_event(watch, event->mask);
    return;
  }
  if (is_draft(event->name)) return;
  char path[MOST_PATH];
  int length = snprintf(path, sizeof path, "%s%s%s", directory, *directory == 0 ? "" : "/", event->name);
  if (length < 0 || (size_t)length >= sizeof path) return;
  if ((event->mask & (IN_CLOSE_WRITE | IN_ATTRIB)) && is_nameless(watch, event->name, path)) return;
  bool is_directory = (event->mask & IN_ISDIR) != 0;
  bool is_here = (event->mask & (IN_CREATE | IN_MOVED_TO)) != 0;
  bool is_gone_now = (event->mask & (IN_DELETE | IN_MOVED_FROM)) != 0;
  if (is_here) tell(watch, CREATED, is_directory, path);
  if (event->mask & IN_CLOSE_WRITE) tell(watch, WRITTEN, is_directory, path);
  if (event->mask & IN_ATTRIB) tell(watch, ATTRIBUTES, is_directory, path);
  if (is_gone_now) tell(watch, REMOVED, is_directory, path);
  if (!is_directory || !watch->recursive) return;
  if (is_gone_now) forget_below(watch, path);
  if (is_here && add(watch, path, true) != 0) watch->overflowed = true;
}

static void drain(struct watch *watch) {
  static char bytes[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
  ssize_t count = read(watch->events, bytes, sizeof bytes);
  for (char *at = bytes; count > 0 && at < bytes + count;) {
    const struct inotify_event *event = (const struct inotify_event *)at;
    take_event(watch, event);
    at += sizeof *event + event->len;
  }
}

// False if the other side is gone.
static bool send_waiting(struct watch *watch) {
  while (watch->length > 0) {
    ssize_t count = send(watch->connection, watch->waiting + watch->start, watch->length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    watch->start += (size_t)count;
    watch->length -= (size_t)count;
  }
  watch->start = 0;
  return true;
}

static void tell_overflow(struct watch *watch) {
  if (!watch->overflowed || watch->length > ENOUGH_ROOM) return;
  write_begin(&watch->frame, F_OVERFLOW);
  put(watch);
  watch->overflowed = false;
}

static void follow(struct watch *watch) {
  while (send_waiting(watch)) {
    if (watch->is_over && watch->length == 0 && !watch->overflowed) return refuse(watch->connection, ENOENT, "watch", watch->root);
    struct pollfd waiting[2] = {
        {.fd = watch->events, .events = POLLIN},
        {.fd = watch->connection, .events = (short)(POLLRDHUP | (watch->length > 0 ? POLLOUT : 0))},
    };
    if (watch->is_over) waiting[0].fd = -1;
    if (poll(waiting, 2, watch->overflowed && watch->length == 0 ? 0 : -1) < 0 && errno != EINTR) return;
    if (waiting[1].revents & (POLLRDHUP | POLLHUP | POLLERR)) return;
    if (waiting[0].revents & POLLIN) drain(watch);
    tell_overflow(watch);
  }
}

void serve_watch(int connection, struct reader *request) {
  char *path = read_str(request);
  struct watch *watch = allocate(sizeof *watch);
  *watch = (struct watch){.connection = connection, .recursive = read_u8(request) != 0, .waiting = allocate(MOST_WAITING)};
  if (request->bad) return refuse(connection, EPROTO, "request", "");
  if (strlen(path) >= MOST_PATH) return refuse(connection, ENAMETOOLONG, "open", "");
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') path[--length] = 0;
  strcpy(watch->root, path);
  watch->events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watch->events < 0) return refuse(connection, errno == EMFILE ? ENOSPC : errno, "watch", path);
  int error = add(watch, "", false);
  if (error != 0) return refuse(connection, error, error == ENOSPC ? "watch" : "open", path);
  write_begin(&watch->frame, F_READY);
  put(watch);
  follow(watch);
}
