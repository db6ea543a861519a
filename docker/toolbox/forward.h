// What the rooms of the forwarder share. One forwarder carries all connections to the sandbox's own ports.
#ifndef FORWARD_H
#define FORWARD_H

#include <sys/types.h>

#include "toolbox.h"

#define FRAME_HEADER 5
// Of what is copied at once in either direction.
#define MOST_PIECE 65536
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
  // much comes from the port: it is moved by the pipe; and how much of it is in there, behind what is kept in `outside`
  bool is_flood;
  size_t piped;
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

// forward-end.c: keeps bytes behind what is kept already.
void keep_rest(struct rest *, const uint8_t *bytes, size_t length);
void drop_rest(struct rest *);
// How many it took. An error of the daemon's side ends the tunnel.
size_t put(struct end *, const uint8_t *bytes, size_t length);
// Bytes, or 0 at the end of them, or -1 if there are none now or never again: then the tunnel is over.
ssize_t get(struct end *, uint8_t *bytes, size_t room);
// What get() does for want of bytes, for whoever else was told this error. Returns -1.
ssize_t be_dry(struct end *, int error);

// forward-pipe.c: moves a piece from the port into the pipe. Bytes; 0 at the end of them; -1 as errno says; or NO_PIPE, where they have to be copied.
#define NO_PIPE (-2)
ssize_t fill_pipe(struct tunnel *);
// Moves what it has in the pipe, which must be something, to the daemon. True once nothing is left in there, but where this kernel moves nothing to it: then
// that is kept as any rest.
bool empty_pipe(struct tunnel *);
// Copies what it has in the pipe to what is kept, where something else can follow.
void spill_pipe(struct tunnel *);
// Whatever it has in the pipe is dropped.
void leave_pipe(struct tunnel *);

#endif
