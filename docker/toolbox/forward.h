// What the rooms of the forwarder share. One forwarder carries all connections to the sandbox's own ports.
#ifndef FORWARD_H
#define FORWARD_H

#include "toolbox.h"

#define FRAME_HEADER 5
// Of what is read at once in either direction. The daemon holds each frame in memory of its own, and its allocator takes blocks of 32 KiB and more from
// the kernel each time.
#define MOST_PIECE 32000
#define MOST_PORT_DATA (MOST_PIECE - FRAME_HEADER)
// Of the request that a connection begins with, behind its header.
#define CONNECT_BYTES 3

// Bytes that were read and not taken by the other side: at most one piece, and only while there are some. Nothing more is read until they are gone.
struct rest {
  uint8_t *bytes;
  size_t length;
  size_t sent;
};

// One end of a connection. What it can do is known from the kernel's last word, until it says otherwise.
struct end {
  struct tunnel *tunnel;
  int fd;
  bool can_read;
  bool can_write;
  struct rest rest;
};

// DRAINING: an error was told. What the daemon still sends is dropped until it closes: on a connection that is closed first, it might not see why.
enum tunnel_state { GREETING, CONNECTING, OPEN, DRAINING, OVER };

// A connection: from the daemon to `outside`, from there to `inside`, which is the port.
struct tunnel {
  struct tunnel *next;
  enum tunnel_state state;
  struct end outside;
  struct end inside;
  uint16_t port;
  bool is_v6;
  // one too many: it is only told so
  bool is_surplus;
  // nanoseconds of the monotonic clock: of one that is not OPEN, when it is given up
  uint64_t until;
  // may go on at once, when others had their turn
  bool is_ready;
  // the frame that the daemon is sending: its header as far as it came, then what is left of its data
  uint8_t header[CONNECT_BYTES + FRAME_HEADER];
  size_t header_length;
  size_t left;
  // the daemon sends no more; and the port was told
  bool is_told;
  bool has_shut;
  // the port sends no more; and the daemon was told
  bool has_ended;
  // why the port takes no more: what it sent before is still carried
  int deaf;
};

struct forwarder {
  int poll;
  int listener;
  struct tunnel *tunnels;
  size_t count;
  size_t most;
};

// forward.c
uint64_t forward_now(void);

// forward-link.c: a tunnel with its daemon's side open; its greeting is to come.
void open_tunnel(struct forwarder *, int outside);
// Takes it as far as it goes.
void move_tunnel(struct forwarder *, struct tunnel *);
// Tells the daemon why there is no connection, or none any more.
void fail_tunnel(struct tunnel *, int error, const char *operation);
void free_tunnel(struct tunnel *);

#endif
