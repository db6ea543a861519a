// Much from a port to the daemon, without a copy of it here: the kernel moves it through a pipe (splice). There is one pipe for all connections. What the
// daemon does not take of a piece stays in it; who needs the pipe meanwhile has that copied out.

#include "forward.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

// Of the pipe: more than an ordinary one has room for, and no more than any user may have (/proc/sys/fs/pipe-max-size).
#define PIPE_BYTES 262144
// Of one piece, which becomes one frame.
#define MOST_MOVED (PIPE_BYTES - 1024)

static struct {
  bool is_open;
  // this kernel or its policy moves nothing through it
  bool is_refused;
  int out;
  int in;
  // whose bytes are in it
  struct tunnel *holder;
} pipe_of_all;

static void close_pipe(void) {
  close(pipe_of_all.out);
  close(pipe_of_all.in);
  pipe_of_all.is_open = false;
  pipe_of_all.holder = NULL;
}

// False where there are no descriptors for it, or no memory: then bytes are copied.
static bool open_pipe(void) {
  int ends[2];
  if (pipe_of_all.is_open) return true;
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
  pipe_of_all.out = ends[0];
  pipe_of_all.in = ends[1];
  pipe_of_all.is_open = true;
  return true;
}

static bool is_refusal(int error) {
  return error == EINVAL || error == ENOSYS || error == EPERM;
}

ssize_t fill_pipe(struct tunnel *tunnel) {
  if (pipe_of_all.is_refused) return NO_PIPE;
  if (pipe_of_all.holder != NULL) spill_pipe(pipe_of_all.holder);
  if (!open_pipe()) return NO_PIPE;
  for (;;) {
    ssize_t count = splice(tunnel->inside.fd, NULL, pipe_of_all.in, NULL, MOST_MOVED, SPLICE_F_NONBLOCK);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && is_refusal(errno)) {
      pipe_of_all.is_refused = true;
      close_pipe();
      return NO_PIPE;
    }
    if (count > 0) {
      pipe_of_all.holder = tunnel;
      tunnel->piped = (size_t)count;
    }
    return count;
  }
}

bool empty_pipe(struct tunnel *tunnel) {
  while (tunnel->piped > 0) {
    ssize_t count = splice(pipe_of_all.out, NULL, tunnel->outside.fd, NULL, tunnel->piped, SPLICE_F_NONBLOCK);
    if (count > 0) tunnel->piped -= (size_t)count;
    else if (count < 0 && errno == EINTR) continue;
    else if (count < 0 && is_refusal(errno)) {
      pipe_of_all.is_refused = true;
      spill_pipe(tunnel);
      return tunnel->state != OVER;
    } else {
      if (count < 0 && errno == EAGAIN) tunnel->outside.can_write = false;
      else tunnel->state = OVER;
      return false;
    }
  }
  pipe_of_all.holder = NULL;
  return true;
}

void spill_pipe(struct tunnel *tunnel) {
  if (tunnel->piped == 0) return;
  uint8_t *bytes = allocate(tunnel->piped);
  size_t length = 0;
  while (length < tunnel->piped) {
    ssize_t count = read(pipe_of_all.out, bytes + length, tunnel->piped - length);
    if (count > 0) length += (size_t)count;
    else if (count == 0 || errno != EINTR) break;
  }
  if (length == tunnel->piped) keep_rest(&tunnel->outside.rest, bytes, length);
  else tunnel->state = OVER;
  free(bytes);
  // whatever else is in there is nobody's
  if (length < tunnel->piped) close_pipe();
  tunnel->piped = 0;
  pipe_of_all.holder = NULL;
}

void leave_pipe(struct tunnel *tunnel) {
  if (pipe_of_all.holder == tunnel) close_pipe();
}
