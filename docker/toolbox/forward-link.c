// One connection to a port: its greeting, then bytes both ways. What one side does not take is not read from the other, so that nothing piles up here.

#include "forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_S 1000000000ULL
// For the greeting, for a connection to a port, and for the daemon to close what has failed.
#define PATIENCE_S 5
// How often one goes on before others have their turn.
#define MOST_TURNS 16
// To the daemon, which is woken less often for as much; fewer where the host's net.core.wmem_max is lower.
#define SENT_AHEAD 524288
// From a piece of so many bytes on the next is not copied.
#define LEAST_FLOOD 16384

static uint8_t piece[MOST_PIECE];

static bool watch(struct forwarder *forwarder, struct end *end) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = end};
  return epoll_ctl(forwarder->poll, EPOLL_CTL_ADD, end->fd, &event) == 0;
}

void open_tunnel(struct forwarder *forwarder, int outside) {
  struct tunnel *tunnel = allocate(sizeof *tunnel);
  *tunnel = (struct tunnel){.state = GREETING, .until = forward_now() + PATIENCE_S * NS_PER_S};
  tunnel->outside = (struct end){.tunnel = tunnel, .fd = outside};
  tunnel->inside = (struct end){.tunnel = tunnel, .fd = -1};
  tunnel->is_surplus = forwarder->count >= forwarder->most;
  tunnel->next = forwarder->tunnels;
  forwarder->tunnels = tunnel;
  forwarder->count++;
  int room = SENT_AHEAD;
  setsockopt(outside, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  if (!watch(forwarder, &tunnel->outside)) tunnel->state = OVER;
}

// A port whose connection was broken off is told so, and not that all was said.
static void close_port(struct tunnel *tunnel) {
  struct linger none = {.l_onoff = 1};
  if (tunnel->inside.fd < 0) return;
  if (!tunnel->has_ended || !tunnel->has_shut) setsockopt(tunnel->inside.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  close(tunnel->inside.fd);
  tunnel->inside.fd = -1;
}

void free_tunnel(struct tunnel *tunnel) {
  leave_pipe(tunnel);
  close_port(tunnel);
  close(tunnel->outside.fd);
  free(tunnel->inside.rest.bytes);
  free(tunnel->outside.rest.bytes);
  free(tunnel);
}

// Frames for the daemon are sent whole; what it does not take of one is kept, and comes before the next.
static void say(struct tunnel *tunnel, const uint8_t *frame, size_t length) {
  spill_pipe(tunnel);
  struct rest *rest = &tunnel->outside.rest;
  size_t sent = rest->length > 0 ? 0 : put(&tunnel->outside, frame, length);
  if (sent < length && tunnel->state != OVER) keep_rest(rest, frame + sent, length - sent);
}

static void say_type(struct tunnel *tunnel, enum frame_type type) {
  const uint8_t frame[FRAME_HEADER] = {1, 0, 0, 0, (uint8_t)type};
  say(tunnel, frame, sizeof frame);
}

void fail_tunnel(struct tunnel *tunnel, int error, const char *operation) {
  // whose error it is told as is the first
  if (tunnel->state == DRAINING || tunnel->state == OVER) return;
  struct writer writer = {0};
  write_begin(&writer, F_ERROR);
  write_u32(&writer, (uint32_t)error);
  write_str(&writer, operation);
  write_str(&writer, "");
  write_end(&writer);
  tunnel->state = DRAINING;
  tunnel->until = forward_now() + PATIENCE_S * NS_PER_S;
  tunnel->is_ready = true;
  close_port(tunnel);
  say(tunnel, writer.bytes, writer.length);
  free(writer.bytes);
}

static bool begin_connect(struct forwarder *forwarder, struct tunnel *tunnel) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address = {0};
  socklen_t size;
  if (tunnel->is_v6) {
    address.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(tunnel->port), .sin6_addr = in6addr_loopback};
    size = sizeof address.v6;
  } else {
    address.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(tunnel->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size = sizeof address.v4;
  }
  struct end *inside = &tunnel->inside;
  int one = 1;
  inside->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (inside->fd < 0) return false;
  setsockopt(inside->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(inside->fd, &address.any, size) != 0 && errno != EINPROGRESS) return false;
  inside->can_read = inside->can_write = false;
  return watch(forwarder, inside);
}

static void open_port(struct forwarder *forwarder, struct tunnel *tunnel) {
  tunnel->state = CONNECTING;
  tunnel->until = forward_now() + PATIENCE_S * NS_PER_S;
  if (begin_connect(forwarder, tunnel)) return;
  int error = errno;
  if (tunnel->inside.fd >= 0) close(tunnel->inside.fd);
  tunnel->inside.fd = -1;
  // where there is no IPv6, what IPv4 said is the answer
  if (tunnel->is_v6) error = ECONNREFUSED;
  if (tunnel->is_v6 || error != ECONNREFUSED) return fail_tunnel(tunnel, error, "connect");
  tunnel->is_v6 = true;
  open_port(forwarder, tunnel);
}

static void finish_connect(struct forwarder *forwarder, struct tunnel *tunnel) {
  if (!tunnel->inside.can_write) return;
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(tunnel->inside.fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error == 0) {
    tunnel->state = OPEN;
    return say_type(tunnel, F_READY);
  }
  close(tunnel->inside.fd);
  tunnel->inside.fd = -1;
  if (tunnel->is_v6 || error != ECONNREFUSED) return fail_tunnel(tunnel, error, "connect");
  tunnel->is_v6 = true;
  open_port(forwarder, tunnel);
}

static void hear_greeting(struct forwarder *forwarder, struct tunnel *tunnel) {
  size_t whole = FRAME_HEADER + CONNECT_BYTES;
  while (tunnel->outside.can_read && tunnel->header_length < whole) {
    ssize_t count = get(&tunnel->outside, tunnel->header + tunnel->header_length, whole - tunnel->header_length);
    if (count == 0) tunnel->state = OVER;
    if (count <= 0) return;
    tunnel->header_length += (size_t)count;
  }
  if (tunnel->header_length < whole) return;
  const uint8_t *at = tunnel->header;
  tunnel->header_length = 0;
  const uint8_t expected[FRAME_HEADER] = {1 + CONNECT_BYTES, 0, 0, 0, F_CONNECT};
  if (memcmp(at, expected, FRAME_HEADER) != 0) return fail_tunnel(tunnel, EPROTO, "request");
  if (at[FRAME_HEADER] != PROTOCOL_VERSION) return fail_tunnel(tunnel, EPROTONOSUPPORT, "version");
  if (tunnel->is_surplus) return fail_tunnel(tunnel, EMFILE, "connections");
  tunnel->port = (uint16_t)(at[FRAME_HEADER + 1] | at[FRAME_HEADER + 2] << 8);
  open_port(forwarder, tunnel);
}

// Gives the port what is in frames, as far as it takes it. Returns how many bytes were used.
static size_t give_frames(struct tunnel *tunnel, const uint8_t *bytes, size_t length) {
  size_t used = 0;
  while (used < length && tunnel->state == OPEN) {
    if (tunnel->left > 0) {
      size_t whole = length - used < tunnel->left ? length - used : tunnel->left;
      size_t taken = tunnel->deaf != 0 ? whole : put(&tunnel->inside, bytes + used, whole);
      if (tunnel->deaf != 0) taken = whole;
      tunnel->left -= taken;
      used += taken;
      if (taken < whole) return used;
      continue;
    }
    tunnel->header[tunnel->header_length++] = bytes[used++];
    if (tunnel->header_length < FRAME_HEADER) continue;
    const uint8_t *header = tunnel->header;
    size_t size = (size_t)header[0] | (size_t)header[1] << 8 | (size_t)header[2] << 16 | (size_t)header[3] << 24;
    tunnel->header_length = 0;
    bool is_data = header[4] == F_DATA && size > 1 && size <= MOST_FRAME;
    bool is_end = header[4] == F_EOF && size == 1;
    if (tunnel->is_told || (!is_data && !is_end)) {
      fail_tunnel(tunnel, EPROTO, "request");
      return used;
    }
    tunnel->left = size - 1;
    tunnel->is_told = is_end;
  }
  return used;
}

// From the daemon to the port. True if there may be more.
static bool move_in(struct tunnel *tunnel) {
  struct rest *rest = &tunnel->inside.rest;
  if (rest->length > 0) {
    rest->sent += give_frames(tunnel, rest->bytes + rest->sent, rest->length - rest->sent);
    if (tunnel->state != OPEN || rest->sent < rest->length) return false;
    drop_rest(rest);
  } else if (tunnel->outside.can_read && !tunnel->has_shut) {
    ssize_t count = get(&tunnel->outside, piece, sizeof piece);
    // it said that it has said all, or broke off
    if (count == 0) tunnel->state = OVER;
    if (count <= 0) return false;
    size_t used = give_frames(tunnel, piece, (size_t)count);
    if (tunnel->state != OPEN) return false;
    if (used < (size_t)count) keep_rest(rest, piece + used, (size_t)count - used);
  } else {
    return false;
  }
  if (tunnel->is_told && rest->length == 0 && !tunnel->has_shut) {
    shutdown(tunnel->inside.fd, SHUT_WR);
    tunnel->has_shut = true;
  }
  return !tunnel->has_shut;
}

static void write_data_header(uint8_t *header, size_t count) {
  uint32_t size = (uint32_t)count + 1;
  for (size_t i = 0; i < 4; i++) header[i] = (uint8_t)(size >> (8 * i));
  header[4] = F_DATA;
}

// Sends on what is kept. True once nothing is.
static bool send_kept(struct tunnel *tunnel) {
  struct rest *rest = &tunnel->outside.rest;
  for (;;) {
    if (rest->length > 0) {
      rest->sent += put(&tunnel->outside, rest->bytes + rest->sent, rest->length - rest->sent);
      if (rest->sent < rest->length) return false;
      drop_rest(rest);
    }
    if (tunnel->piped == 0) return true;
    if (!empty_pipe(tunnel)) return false;
  }
}

// A piece of data from the port, on its way to the daemon. Its length, or as get().
static ssize_t move_piece(struct tunnel *tunnel) {
  ssize_t count = tunnel->is_flood ? fill_pipe(tunnel) : NO_PIPE;
  if (count == -1) return be_dry(&tunnel->inside, errno);
  if (count > 0) {
    uint8_t header[FRAME_HEADER];
    size_t piped = tunnel->piped;
    write_data_header(header, piped);
    // in front of what is in the pipe
    tunnel->piped = 0;
    say(tunnel, header, sizeof header);
    tunnel->piped = piped;
    send_kept(tunnel);
  }
  if (count != NO_PIPE) return count;
  count = get(&tunnel->inside, piece + FRAME_HEADER, MOST_PORT_DATA);
  if (count <= 0) return count;
  write_data_header(piece, (size_t)count);
  say(tunnel, piece, FRAME_HEADER + (size_t)count);
  return count;
}

// From the port to the daemon, likewise.
static bool move_out(struct tunnel *tunnel) {
  if (tunnel->outside.rest.length > 0 || tunnel->piped > 0) return send_kept(tunnel) && tunnel->state == OPEN;
  if (tunnel->has_ended || !tunnel->inside.can_read) return false;
  ssize_t count = move_piece(tunnel);
  if (count < 0) return false;
  if (count == 0 && tunnel->deaf != 0) {
    fail_tunnel(tunnel, tunnel->deaf, "port");
    return false;
  }
  if (count == 0) {
    tunnel->has_ended = true;
    say_type(tunnel, F_EOF);
  }
  tunnel->is_flood = count >= LEAST_FLOOD;
  return tunnel->state == OPEN;
}

// Until the daemon closes.
static void drain(struct tunnel *tunnel) {
  struct rest *rest = &tunnel->outside.rest;
  if (rest->length > 0) rest->sent += put(&tunnel->outside, rest->bytes + rest->sent, rest->length - rest->sent);
  if (rest->length > 0 && rest->sent == rest->length) drop_rest(rest);
  for (int turns = 0; turns < MOST_TURNS && tunnel->outside.can_read && tunnel->state != OVER; turns++) {
    if (get(&tunnel->outside, piece, sizeof piece) == 0) tunnel->state = OVER;
  }
  tunnel->is_ready = tunnel->outside.can_read && tunnel->state != OVER;
}

void move_tunnel(struct forwarder *forwarder, struct tunnel *tunnel) {
  if (tunnel->state == GREETING) hear_greeting(forwarder, tunnel);
  if (tunnel->state == CONNECTING) finish_connect(forwarder, tunnel);
  for (int turns = 0; tunnel->state == OPEN; turns++) {
    bool has_moved = move_in(tunnel);
    if (tunnel->state == OPEN) has_moved = move_out(tunnel) || has_moved;
    if (tunnel->state != OPEN) break;
    if (tunnel->has_shut && tunnel->has_ended && tunnel->outside.rest.length == 0) {
      tunnel->state = OVER;
      return;
    }
    if (!has_moved) return;
    if (turns == MOST_TURNS) {
      tunnel->is_ready = true;
      return;
    }
  }
  if (tunnel->state == DRAINING) drain(tunnel);
}
