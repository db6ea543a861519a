// One end of a connection: what is read from it, written to it, and kept for it.

#include "forward.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void keep_rest(struct rest *rest, const uint8_t *bytes, size_t length) {
  size_t left = rest->length - rest->sent;
  uint8_t *kept = allocate(left + length);
  if (left > 0) memcpy(kept, rest->bytes + rest->sent, left);
  memcpy(kept + left, bytes, length);
  free(rest->bytes);
  *rest = (struct rest){.bytes = kept, .length = left + length};
}

void drop_rest(struct rest *rest) {
  free(rest->bytes);
  *rest = (struct rest){0};
}

// A port that takes no more may have said why before: that is carried first.
static void be_deaf(struct tunnel *tunnel, int error) {
  if (tunnel->has_ended) return fail_tunnel(tunnel, error, "port");
  tunnel->deaf = error;
  tunnel->inside.can_read = true;
}

size_t put(struct end *end, const uint8_t *bytes, size_t length) {
  size_t sent = 0;
  while (sent < length && end->can_write) {
    ssize_t count = send(end->fd, bytes + sent, length - sent, MSG_NOSIGNAL);
    if (count >= 0) sent += (size_t)count;
    else if (errno == EAGAIN) end->can_write = false;
    else if (errno != EINTR) {
      if (end == &end->tunnel->inside) be_deaf(end->tunnel, errno);
      else end->tunnel->state = OVER;
      return sent;
    }
  }
  return sent;
}

ssize_t be_dry(struct end *end, int error) {
  end->can_read = false;
  if (error == EAGAIN) return -1;
  if (end == &end->tunnel->inside) fail_tunnel(end->tunnel, error, "port");
  else end->tunnel->state = OVER;
  return -1;
}

ssize_t get(struct end *end, uint8_t *bytes, size_t room) {
  for (;;) {
    ssize_t count = recv(end->fd, bytes, room, 0);
    if (count >= 0) return count;
    if (errno != EINTR) return be_dry(end, errno);
  }
}
