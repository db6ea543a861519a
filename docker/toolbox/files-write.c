// WRITE: a whole file in place of another, so that nobody sees half of it, or bytes at an offset of one that is there.

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define CREATE_ONLY 1
#define AT_OFFSET 2
#define PARENTS 4
#define SIZED 8
#define DEFAULT_MODE 0xffffffff

// How long another writer's lock is waited for. Unit: milliseconds.
#define LOCK_WAIT 30000

struct ask {
  int connection;
  char *path;
  uint32_t mode;
  uint8_t flags;
  uint64_t offset;
  uint64_t size;
  char *etag;
};

// Why it was not done.
struct failure {
  int error;
  const char *operation;
};

static const struct failure none = {0, ""};
// The other side is gone, or was told already.
static const struct failure gone = {-1, ""};

static struct failure failed(int error, const char *operation) { return (struct failure){error, operation}; }

int write_all(int file, const uint8_t *bytes, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = write(file, bytes + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    done += (size_t)count;
  }
  return 0;
}

// All DATA until EOF.
static struct failure take_data(const struct ask *ask, int file) {
  struct writer ready = {0};
  write_begin(&ready, F_READY);
  if (!send_frame(ask->connection, &ready)) return gone;
  uint8_t *buffer = allocate(MOST_FRAME);
  uint64_t taken = 0;
  for (;;) {
    uint8_t type;
    struct reader payload;
    if (!receive_frame(ask->connection, buffer, &type, &payload)) return gone;
    if (type == F_EOF) break;
    if (type != F_DATA) return failed(EPROTO, "request");
    size_t size = (size_t)(payload.end - payload.at);
    taken += size;
    if ((ask->flags & SIZED) && taken > ask->size) return failed(EINVAL, "size");
    int error = write_all(file, payload.at, size);
    if (error != 0) return failed(error, "write");
  }
  free(buffer);
  return (ask->flags & SIZED) && taken != ask->size ? failed(EINVAL, "size") : none;
}

// Modification times of two writes of this program differ, also where the kernel's clock for files is a coarse one: etags rely on it.
static void stamp(int file) {
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
  clock_gettime(CLOCK_REALTIME, &times[1]);
  futimens(file, times);
}

static bool has_etag(const struct ask *ask, const struct stat *found) {
  char etag[ETAG_SIZE];
  etag_of(etag, found);
  return strcmp(etag, ask->etag) == 0;
}

// Looks at what is to be replaced.
static struct failure check(const struct ask *ask, const struct place *place, mode_t *mode) {
  struct stat found;
  if (fstatat(place->directory, place->name, &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) return failed(errno, "stat");
    return *ask->etag != 0 ? failed(ESTALE, "etag") : none;
  }
  if (ask->flags & CREATE_ONLY) return failed(EEXIST, "create");
  if (!S_ISREG(found.st_mode)) return failed(wrong_type(&found), "type");
  if (*ask->etag != 0 && !has_etag(ask, &found)) return failed(ESTALE, "etag");
  *mode = found.st_mode & 0777;
  return none;
}

// The lock under which this program compares and renames. Any program may hold it, so it is not waited for without end.
static int lock(int file) {
  for (int waited = 0;; waited += 10) {
    if (flock(file, LOCK_EX | LOCK_NB) == 0) return 0;
    if ((errno != EWOULDBLOCK && errno != EINTR) || waited >= LOCK_WAIT) return errno;
    usleep(10000);
  }
}

static struct failure put_in_place(const struct ask *ask, const struct place *place, struct draft *draft, struct stat *found) {
  // one that may be written but not read can be neither locked nor synced
  int directory = openat(place->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 && (errno != EACCES || *ask->etag != 0)) return failed(errno, "lock");
  int error = directory < 0 ? 0 : lock(directory);
  if (error != 0) return failed(error, "lock");
  mode_t mode = ask->mode == DEFAULT_MODE ? 0644 : ask->mode & 0777;
  mode_t replaced = mode;
  struct failure failure = check(ask, place, &replaced);
  if (failure.error != 0) return failure;
  if (fchmod(draft->file, ask->mode == DEFAULT_MODE ? replaced : mode) != 0) return failed(errno, "chmod");
  stamp(draft->file);
  if (fsync(draft->file) != 0) return failed(errno, "sync");
  error = draft_place(draft, place->name, !(ask->flags & CREATE_ONLY));
  if (error != 0) return failed(error, "rename");
  if (fstat(draft->file, found) != 0) return failed(errno, "stat");
  if (directory >= 0) {
    flock(directory, LOCK_UN);
    if (fsync(directory) != 0 && errno != EINVAL) return failed(errno, "sync");
    close(directory);
  }
  return none;
}

// Writes out what was taken, before the lock, so that others wait for the end of the sync only. That it is durable is for the sync to say.
static struct failure settle(int file) {
  const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if (sync_file_range(file, 0, 0, all) == 0) return none;
  return errno == ENOSPC || errno == EDQUOT || errno == EIO ? failed(errno, "sync") : none;
}

static struct failure replace(const struct ask *ask, struct stat *found) {
  struct place place;
  int error = find_place(&place, ask->path, !(ask->flags & CREATE_ONLY), ask->flags & PARENTS);
  if (error != 0) return failed(error, "open");
  mode_t mode;
  // what is refused anyway is refused before it is sent
  struct failure failure = check(ask, &place, &mode);
  if (failure.error != 0) return failure;
  struct draft draft;
  error = draft_begin(&draft, place.directory);
  if (error != 0) return failed(error, "create");
  failure = take_data(ask, draft.file);
  if (failure.error == 0) failure = settle(draft.file);
  if (failure.error == 0) failure = put_in_place(ask, &place, &draft, found);
  draft_drop(&draft);
  return failure;
}

static struct failure write_at(const struct ask *ask, struct stat *found) {
  int file = open(ask->path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (file < 0) return failed(errno, "open");
  if (fstat(file, found) != 0) return failed(errno, "stat");
  if (!S_ISREG(found->st_mode)) return failed(wrong_type(found), "type");
  if (*ask->etag != 0) {
    // held until the end: of two with the same etag one comes first, and the other is told
    if (flock(file, LOCK_EX | LOCK_NB) != 0) return failed(errno == EWOULDBLOCK ? ESTALE : errno, errno == EWOULDBLOCK ? "etag" : "lock");
    if (fstat(file, found) != 0 || !has_etag(ask, found)) return failed(ESTALE, "etag");
  }
  if (ask->offset > INT64_MAX || lseek(file, (off_t)ask->offset, SEEK_SET) < 0) return failed(EFBIG, "seek");
  struct failure failure = take_data(ask, file);
  if (failure.error != 0) return failure;
  if (ask->mode != DEFAULT_MODE && fchmod(file, ask->mode & 0777) != 0) return failed(errno, "chmod");
  stamp(file);
  if (fsync(file) != 0) return failed(errno, "sync");
  return fstat(file, found) != 0 ? failed(errno, "stat") : none;
}

void serve_write(int connection, struct reader *request) {
  struct ask ask = {.connection = connection};
  ask.path = read_str(request);
  ask.mode = read_u32(request);
  ask.flags = read_u8(request);
  ask.offset = read_u64(request);
  ask.size = read_u64(request);
  ask.etag = read_str(request);
  if (request->bad) return refuse(connection, EPROTO, "request", "");
  struct stat found;
  struct failure failure = ask.flags & AT_OFFSET ? write_at(&ask, &found) : replace(&ask, &found);
  if (failure.error == 0) send_info(connection, ask.path, &found);
  else if (failure.error != gone.error) refuse(connection, failure.error, failure.operation, ask.path);
}
