// What requests of files are answered with: what is at a path, and why something was not done.

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OUTBOX_BYTES 65536
#define DRAIN_SECONDS 30
#define SEND_AHEAD_BYTES (1024 * 1024)

void send_ahead(int connection) {
  // the kernel doubles it, and cuts it to what the host allows
  int size = SEND_AHEAD_BYTES;
  setsockopt(connection, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
}

void outbox_begin(struct outbox *outbox, int connection) {
  *outbox = (struct outbox){.connection = connection, .bytes = allocate(OUTBOX_BYTES)};
}

static bool send_all(int connection, const uint8_t *bytes, size_t size) {
  for (size_t sent = 0; sent < size;) {
    ssize_t count = send(connection, bytes + sent, size - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    sent += (size_t)count;
  }
  return true;
}

bool outbox_flush(struct outbox *outbox) {
  bool sent = send_all(outbox->connection, outbox->bytes, outbox->length);
  outbox->length = 0;
  return sent;
}

bool outbox_add(struct outbox *outbox) {
  write_end(&outbox->frame);
  if (outbox->length + outbox->frame.length > OUTBOX_BYTES && !outbox_flush(outbox)) return false;
  if (outbox->frame.length > OUTBOX_BYTES) return send_all(outbox->connection, outbox->frame.bytes, outbox->frame.length);
  memcpy(outbox->bytes + outbox->length, outbox->frame.bytes, outbox->frame.length);
  outbox->length += outbox->frame.length;
  return true;
}

void refuse(int connection, int error, const char *operation, const char *path) {
  send_error(connection, error, operation, path);
  shutdown(connection, SHUT_WR);
  time_t end = time(NULL) + DRAIN_SECONDS;
  uint8_t *dropped = allocate(65536);
  for (;;) {
    time_t left = end - time(NULL);
    struct pollfd waiting = {.fd = connection, .events = POLLIN};
    if (left <= 0 || (poll(&waiting, 1, (int)left * 1000) < 0 && errno != EINTR)) break;
    if (recv(connection, dropped, 65536, MSG_DONTWAIT) == 0) break;
    if (waiting.revents & (POLLERR | POLLHUP) && !(waiting.revents & POLLIN)) break;
  }
  free(dropped);
}

bool is_gone(int connection) {
  struct pollfd waiting = {.fd = connection, .events = POLLRDHUP};
  return poll(&waiting, 1, 0) > 0 && (waiting.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

static int64_t nanoseconds(const struct timespec *time) { return (int64_t)time->tv_sec * 1000000000 + time->tv_nsec; }

void etag_of(char etag[ETAG_SIZE], const struct stat *found) {
  snprintf(etag, ETAG_SIZE, "%llx-%llx-%llx-%llx-%llx", (unsigned long long)found->st_dev, (unsigned long long)found->st_ino,
           (unsigned long long)found->st_size, (unsigned long long)nanoseconds(&found->st_mtim), (unsigned long long)nanoseconds(&found->st_ctim));
}

static uint8_t type_of(mode_t mode) {
  if (S_ISREG(mode)) return 1;
  if (S_ISDIR(mode)) return 2;
  return S_ISLNK(mode) ? 3 : 4;
}

void write_info(struct writer *writer, const char *path, const struct stat *found, const char *target) {
  char etag[ETAG_SIZE];
  etag_of(etag, found);
  write_str(writer, path);
  write_u8(writer, type_of(found->st_mode));
  write_u32(writer, found->st_mode & 07777);
  write_u64(writer, (uint64_t)found->st_size);
  write_i64(writer, nanoseconds(&found->st_mtim));
  write_u32(writer, found->st_uid);
  write_u32(writer, found->st_gid);
  write_str(writer, target);
  write_str(writer, etag);
}

void send_info(int connection, const char *path, const struct stat *found) {
  struct writer writer = {0};
  write_begin(&writer, F_INFO);
  write_info(&writer, path, found, S_ISLNK(found->st_mode) ? link_target(AT_FDCWD, path) : "");
  send_frame(connection, &writer);
}

char *link_target(int directory, const char *name) {
  char *target = allocate(MOST_PATH);
  ssize_t length = readlinkat(directory, name, target, MOST_PATH - 1);
  target[length < 0 ? 0 : length] = 0;
  return target;
}

int wrong_type(const struct stat *found) { return S_ISDIR(found->st_mode) ? EISDIR : EINVAL; }
