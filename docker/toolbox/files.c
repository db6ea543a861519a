// Requests of files: which is asked, and those that are one step. The kernel decides, as for every program of the sandbox's user.

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void serve_stat(int connection, const char *path, bool follow) {
  struct stat found;
  if (fstatat(AT_FDCWD, path, &found, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) return refuse(connection, errno, "stat", path);
  send_info(connection, path, &found);
}

static void serve_make_directory(int connection, const char *path, uint32_t mode, bool parents) {
  int error = make_directory(path, mode & 01777, parents);
  struct stat found;
  if (error == EEXIST && parents && stat(path, &found) == 0 && S_ISDIR(found.st_mode)) error = 0;
  if (error != 0) return refuse(connection, error, "mkdir", path);
  serve_stat(connection, path, true);
}

static void serve_move(int connection, const char *path, const char *to, bool no_replace) {
  if (renameat2(AT_FDCWD, path, AT_FDCWD, to, no_replace ? RENAME_NOREPLACE : 0) != 0) {
    int error = errno;
    struct stat found;
    bool is_there = error == EEXIST || error == ENOTEMPTY || error == EISDIR || error == ENOTDIR || error == ENOENT;
    // what is said is of the new path, if there is nothing to be said of the old one
    return refuse(connection, error, "rename", is_there && lstat(path, &found) == 0 ? to : path);
  }
  serve_stat(connection, to, false);
}

void serve_file_request(int connection, uint8_t type, struct reader *request) {
  // a mode is what was asked for
  umask(0);
  signal(SIGXFSZ, SIG_IGN);
  if (type == F_WRITE) return serve_write(connection, request);
  char *path = read_str(request);
  char *second = type == F_MOVE ? read_str(request) : NULL;
  // the numbers of a request, in the order of the protocol; those that it has not are not looked at
  uint64_t numbers[2] = {0, 0};
  if (type == F_READ) numbers[0] = read_u64(request), numbers[1] = read_u64(request);
  if (type == F_LIST_DIRECTORY || type == F_MAKE_DIRECTORY) numbers[0] = read_u32(request);
  if (type == F_LIST_DIRECTORY) second = read_str(request);
  // daemons of earlier releases end there
  bool together = type == F_LIST_DIRECTORY && request->at < request->end && read_u8(request) != 0;
  bool flag = (type == F_STAT || type == F_MAKE_DIRECTORY || type == F_MOVE || type == F_REMOVE) && read_u8(request) != 0;
  if (request->bad) return refuse(connection, EPROTO, "request", "");
  switch (type) {
    case F_STAT:
      return serve_stat(connection, path, flag);
    case F_LIST_DIRECTORY:
      return serve_list(connection, path, (uint32_t)numbers[0], second, together);
    case F_MAKE_DIRECTORY:
      return serve_make_directory(connection, path, (uint32_t)numbers[0], flag);
    case F_MOVE:
      return serve_move(connection, path, second, flag);
    case F_REMOVE:
      return serve_remove(connection, path, flag);
    case F_READ:
      return serve_read(connection, path, numbers[0], numbers[1]);
    default:
      return refuse(connection, EPROTO, "request", "");
  }
}
