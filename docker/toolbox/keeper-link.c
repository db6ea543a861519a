// The keeper's connections: callers, which have said nothing yet, and the link, which is the last one that said ATTACH.

#include "keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define CALLER_NS 10000000000
// Answers that wait to be taken: with more of them no more is heard.
#define MOST_SAID 8192
#define FIRST_ROOM 4096
#define MOST_PARTS 32

bool is_attached(const struct keeper *keeper) { return keeper->link.socket >= 0; }

void hang_up(struct connection *connection) {
  if (connection->socket >= 0) close(connection->socket);
  free(connection->in);
  *connection = (struct connection){.socket = -1};
}

void detach(struct keeper *keeper) {
  if (!is_attached(keeper)) return;
  hang_up(&keeper->link);
  free_chunk(keeper->torn);
  keeper->torn = NULL;
  keeper->cursor = NULL;
  keeper->sent = 0;
  keeper->said.length = 0;
  keeper->saying.length = 0;
  keeper->saying_sent = 0;
  keeper->taken_is_due = false;
  keeper->link_blocked = false;
  keeper->stopped_at = 0;
  if (!keeper->has_ended && keeper->orphan_ns != 0 && keeper->ending == NOT_ENDING) keeper->orphan_at = after(keeper->orphan_ns);
}

// One frame more of those that are sent before output.
static void say(struct keeper *keeper, struct writer *frame) {
  write_end(frame);
  write_bytes(&keeper->said, frame->bytes, frame->length);
  free(frame->bytes);
}

static void say_status(struct keeper *keeper) {
  struct writer frame = {0};
  write_begin(&frame, F_STATUS);
  write_u32(&frame, keeper->has_ended ? 0 : (uint32_t)keeper->pid);
  write_i64(&frame, keeper->started_ns);
  write_u64(&frame, keeper->oldest == NULL ? keeper->last_sequence + 1 : keeper->oldest->sequence);
  write_u64(&frame, keeper->last_sequence);
  write_u64(&frame, keeper->output_bytes);
  write_u64(&frame, keeper->input_offset);
  write_u8(&frame, keeper->input >= 0);
  say(keeper, &frame);
}

static void say_taken(struct keeper *keeper) {
  struct writer frame = {0};
  keeper->taken_is_due = false;
  write_begin(&frame, F_TAKEN);
  write_u64(&frame, keeper->input_offset);
  write_u8(&frame, keeper->input >= 0);
  say(keeper, &frame);
}

static void say_failed(struct keeper *keeper, int error, const char *operation) {
  struct writer frame = {0};
  if (error == 0) return;
  write_begin(&frame, F_FAILED);
  write_u32(&frame, (uint32_t)error);
  write_str(&frame, operation);
  say(keeper, &frame);
}

void attach(struct keeper *keeper, struct connection *caller, uint64_t sequence) {
  detach(keeper);
  keeper->orphan_at = 0;
  drop_input(keeper);
  acknowledge(keeper, sequence);
  keeper->link = *caller;
  keeper->link.until = 0;
  *caller = (struct connection){.socket = -1};
  keeper->cursor = keeper->oldest;
  while (keeper->cursor != NULL && keeper->cursor->sequence <= sequence) keeper->cursor = keeper->cursor->next;
  begin_waiting(keeper);
  say_status(keeper);
}

// The last word to somebody who does not speak the protocol. Not after half a frame, of which it would be taken for the rest.
static void refuse(struct connection *connection, int error, bool is_between) {
  if (is_between) send_error(connection->socket, error, "request", "");
}

static void refuse_link(struct keeper *keeper) {
  refuse(&keeper->link, EPROTO, keeper->sent == 0 && keeper->saying.length == 0);
  detach(keeper);
}

// Reads what is there, up to one frame. False once nothing more comes.
static bool hear(struct connection *connection) {
  if (connection->in_room == 0) {
    connection->in_room = FIRST_ROOM;
    connection->in = allocate(connection->in_room);
  }
  ssize_t count = recv(connection->socket, connection->in + connection->in_length, connection->in_room - connection->in_length, MSG_DONTWAIT);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  connection->in_length += (size_t)count;
  return count > 0;
}

enum heard { HEARD_NONE, HEARD_FRAME, HEARD_GARBAGE };

// The first frame in the buffer, if it is whole. It stays there until it is forgotten.
static enum heard first_frame(struct connection *connection, size_t at, size_t *size, uint8_t *type, struct reader *payload) {
  const uint8_t *bytes = connection->in + at;
  size_t have = connection->in_length - at;
  if (have < 4) return HEARD_NONE;
  size_t length = (size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
  if (length < 1 || length > MOST_FRAME) return HEARD_GARBAGE;
  *size = 4 + length;
  if (have < *size) return HEARD_NONE;
  *type = bytes[4];
  *payload = (struct reader){.at = bytes + 5, .end = bytes + *size};
  return HEARD_FRAME;
}

// Moves what is left to the front, and has room for the whole of a frame that began.
static void forget(struct connection *connection, size_t count, size_t wanted) {
  connection->in_length -= count;
  if (connection->in_length > 0) memmove(connection->in, connection->in + count, connection->in_length);
  size_t room = wanted > FIRST_ROOM ? wanted : FIRST_ROOM;
  if (connection->in_length == 0) {
    free(connection->in);
    connection->in = NULL;
    connection->in_room = 0;
  } else if (room > connection->in_room) {
    connection->in = realloc(connection->in, room);
    if (connection->in == NULL) _exit(70);
    connection->in_room = room;
  }
}

void accept_caller(struct keeper *keeper) {
  int socket = accept4(keeper->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (socket < 0) return;
  struct connection *place = &keeper->callers[0];
  for (size_t i = 0; i < MOST_CALLERS; i++) {
    struct connection *caller = &keeper->callers[i];
    // a free one, or that of who waits longest
    if (caller->socket < 0 || (place->socket >= 0 && caller->until < place->until)) place = caller;
  }
  hang_up(place);
  *place = (struct connection){.socket = socket, .until = after(CALLER_NS)};
}

void hear_caller(struct keeper *keeper, struct connection *caller) {
  bool more = hear(caller);
  size_t size = 0;
  uint8_t type;
  struct reader payload;
  enum heard heard = first_frame(caller, 0, &size, &type, &payload);
  if (heard == HEARD_NONE) {
    if (more) forget(caller, 0, size);
    else hang_up(caller);
    return;
  }
  uint8_t version = heard == HEARD_FRAME ? read_u8(&payload) : 0;
  uint64_t sequence = heard == HEARD_FRAME ? read_u64(&payload) : 0;
  int error = 0;
  if (heard == HEARD_GARBAGE) error = EPROTO;
  else if (version != PROTOCOL_VERSION) error = EPROTONOSUPPORT;
  else if (type != F_ATTACH || payload.bad) error = EPROTO;
  if (error != 0) {
    refuse(caller, error, true);
    return hang_up(caller);
  }
  forget(caller, size, 0);
  attach(keeper, caller, sequence);
  send_to_link(keeper);
}

// What the daemon says on the link. False for what is not of the protocol.
static bool obey(struct keeper *keeper, uint8_t type, struct reader *payload) {
  switch (type) {
    case F_INPUT: {
      uint64_t offset = read_u64(payload);
      return !payload->bad && take_input(keeper, offset, payload->at, (size_t)(payload->end - payload->at));
    }
    case F_CLOSE_INPUT: {
      uint64_t offset = read_u64(payload);
      if (payload->bad) return false;
      close_input_at(keeper, offset);
      return true;
    }
    case F_RESIZE: {
      uint16_t rows = read_u16(payload);
      uint16_t columns = read_u16(payload);
      bool repaint = read_u8(payload) != 0;
      if (payload->bad) return false;
      say_failed(keeper, resize_terminal(keeper, rows, columns, repaint), "resize");
      return true;
    }
    case F_SIGNAL: {
      uint8_t signal = read_u8(payload);
      uint8_t scope = read_u8(payload);
      if (payload->bad) return false;
      say_failed(keeper, signal_process(keeper, signal, scope), "signal");
      return true;
    }
    case F_ACK: {
      uint64_t sequence = read_u64(payload);
      if (payload->bad) return false;
      acknowledge(keeper, sequence);
      return true;
    }
    case F_END: {
      uint32_t grace_ms = read_u32(payload);
      if (payload->bad) return false;
      end_process(keeper, CAUSE_ORPHANED, (uint64_t)grace_ms * 1000000);
      return true;
    }
    case F_FORGET:
      keeper->is_forgotten = keeper->exit_is_told;
      return keeper->is_forgotten;
    default:
      return false;
  }
}

bool may_hear(const struct keeper *keeper) { return keeper->said.length <= MOST_SAID; }

void hear_link(struct keeper *keeper) {
  struct connection *link = &keeper->link;
  bool more = hear(link);
  size_t at = 0;
  size_t size = 0;
  for (;;) {
    uint8_t type;
    struct reader payload;
    size = 0;
    enum heard heard = first_frame(link, at, &size, &type, &payload);
    if (heard == HEARD_NONE) break;
    if (heard == HEARD_GARBAGE || !obey(keeper, type, &payload)) return refuse_link(keeper);
    at += size;
  }
  if (!more) return detach(keeper);
  forget(link, at, size);
}

bool has_to_send(const struct keeper *keeper) {
  return keeper->said.length > 0 || keeper->saying.length > 0 || keeper->taken_is_due || keeper->torn != NULL || keeper->cursor != NULL;
}

// Frames in the order in which they go: the rest of what was begun, answers, output.
static size_t gather(struct keeper *keeper, struct iovec *parts) {
  size_t count = 0;
  struct chunk *half = keeper->torn != NULL ? keeper->torn : keeper->cursor;
  if (keeper->saying.length > 0) {
    parts[count++] = (struct iovec){keeper->saying.bytes + keeper->saying_sent, keeper->saying.length - keeper->saying_sent};
    return count;
  }
  size_t from = keeper->sent;
  for (struct chunk *chunk = half; chunk != NULL && count < MOST_PARTS; chunk = chunk == keeper->torn ? keeper->cursor : chunk->next) {
    parts[count++] = (struct iovec){chunk->frame + from, chunk->length - from};
    from = 0;
    // answers do not wait for all the output there is
    if (keeper->said.length > 0 || keeper->taken_is_due) break;
  }
  return count;
}

static void note_sent(struct keeper *keeper, size_t count) {
  if (keeper->saying.length > 0) {
    keeper->saying_sent += count;
    if (keeper->saying_sent < keeper->saying.length) return;
    free(keeper->saying.bytes);
    keeper->saying = (struct writer){0};
    keeper->saying_sent = 0;
    return;
  }
  while (count > 0) {
    struct chunk *chunk = keeper->torn != NULL ? keeper->torn : keeper->cursor;
    size_t left = chunk->length - keeper->sent;
    chunk->touched = true;
    if (count < left) {
      keeper->sent += count;
      return;
    }
    count -= left;
    keeper->sent = 0;
    if (chunk == keeper->torn) {
      free_chunk(chunk);
      keeper->torn = NULL;
    } else {
      keeper->cursor = chunk->next;
    }
  }
}

void send_to_link(struct keeper *keeper) {
  keeper->link_blocked = false;
  while (is_attached(keeper) && has_to_send(keeper)) {
    if (keeper->taken_is_due) say_taken(keeper);
    if (keeper->sent == 0 && keeper->saying.length == 0 && keeper->said.length > 0) {
      keeper->saying = keeper->said;
      keeper->said = (struct writer){0};
    }
    struct iovec parts[MOST_PARTS];
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = gather(keeper, parts)};
    ssize_t count = sendmsg(keeper->link.socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) {
      keeper->link_blocked = true;
      return;
    }
    if (count < 0) return detach(keeper);
    note_sent(keeper, (size_t)count);
  }
}
