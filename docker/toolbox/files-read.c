// READ: the bytes of a regular file from an offset on.

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void serve_read(int connection, const char *path, uint64_t offset, uint64_t length) {
  // a FIFO or a device that is opened so makes nobody wait, and is not read
  int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (file < 0) return refuse(connection, errno, "open", path);
  struct stat found;
  if (fstat(file, &found) != 0) return refuse(connection, errno, "stat", path);
  if (!S_ISREG(found.st_mode)) return refuse(connection, wrong_type(&found), "type", path);
  send_ahead(connection);
  struct writer writer = {0};
  write_begin(&writer, F_INFO);
  write_info(&writer, path, &found, "");
  if (!send_frame(connection, &writer)) return;
  uint8_t *bytes = allocate(MOST_DATA);
  uint64_t done = 0;
  while (length == 0 || done < length) {
    size_t wanted = length == 0 || length - done > MOST_DATA ? MOST_DATA : (size_t)(length - done);
    // an offset that no file can have is beyond the end of every one
    ssize_t count = offset + done > INT64_MAX ? 0 : pread(file, bytes, wanted, (off_t)(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return refuse(connection, errno, "read", path);
    if (count == 0) break;
    write_begin(&writer, F_DATA);
    write_bytes(&writer, bytes, (size_t)count);
    if (!send_frame(connection, &writer)) return;
    done += (uint64_t)count;
  }
  send_done(connection, done, 0);
}
