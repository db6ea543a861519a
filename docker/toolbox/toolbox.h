// What the rooms of the toolbox share. The protocol is in PROTOCOL.md.
#ifndef TOOLBOX_H
#define TOOLBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION 1
#define MOST_FRAME 262208
#define MOST_OUTPUT 65536
#define MOST_DATA 262144

enum frame_type {
  F_ERROR = 0x00, F_DONE = 0x01,
  F_PING = 0x10, F_START = 0x11, F_ATTACH = 0x12, F_LIST = 0x13, F_CLEAR = 0x14, F_FORWARD = 0x15, F_CONNECT = 0x16,
  F_PONG = 0x20, F_HELD = 0x21, F_STATUS = 0x22, F_OUTPUT = 0x23, F_EXIT = 0x24, F_TAKEN = 0x25, F_FAILED = 0x26,
  F_INPUT = 0x30, F_CLOSE_INPUT = 0x31, F_RESIZE = 0x32, F_SIGNAL = 0x33, F_ACK = 0x34, F_END = 0x35, F_FORGET = 0x36,
  F_INFO = 0x40, F_DATA = 0x41, F_EOF = 0x42, F_MORE = 0x43, F_READY = 0x44, F_CHANGE = 0x45, F_OVERFLOW = 0x46, F_ENTRY = 0x47, F_INFOS = 0x48,
  F_STAT = 0x50, F_LIST_DIRECTORY = 0x51, F_MAKE_DIRECTORY = 0x52, F_MOVE = 0x53, F_REMOVE = 0x54, F_READ = 0x55, F_WRITE = 0x56,
  F_WATCH = 0x57, F_TREE_READ = 0x58, F_TREE_WRITE = 0x59,
};

// A frame that is being read: a cursor over its payload. Reading beyond its end sets `bad`, and yields zeros and empty strings.
struct reader {
  const uint8_t *at;
  const uint8_t *end;
  bool bad;
};

uint8_t read_u8(struct reader *);
uint16_t read_u16(struct reader *);
uint32_t read_u32(struct reader *);
uint64_t read_u64(struct reader *);
int64_t read_i64(struct reader *);
// A string of its own, ended by NUL. One with a NUL in it is bad.
char *read_str(struct reader *);
// A NULL-ended list of such strings. More than `most` is bad.
char **read_list(struct reader *, uint32_t most);

// A frame that is being made.
struct writer {
  uint8_t *bytes;
  size_t length;
  size_t room;
};

void write_begin(struct writer *, enum frame_type);
void write_u8(struct writer *, uint8_t);
void write_u16(struct writer *, uint16_t);
void write_u32(struct writer *, uint32_t);
void write_u64(struct writer *, uint64_t);
void write_i64(struct writer *, int64_t);
void write_str(struct writer *, const char *);
void write_bytes(struct writer *, const void *, size_t);
// Sets the length. The frame is `bytes` and `length` then, until the next write_begin.
void write_end(struct writer *);

// Sends the frame whole, blocking. False if the other side is gone.
bool send_frame(int socket, struct writer *);
// Receives one frame, blocking, into a buffer of MOST_FRAME bytes. False at the end of the connection, or of the protocol.
bool receive_frame(int socket, uint8_t *buffer, uint8_t *type, struct reader *payload);
// The last frame of a request.
void send_error(int socket, int error, const char *operation, const char *path);
void send_done(int socket, uint64_t a, uint64_t b);

// Never NULL: without memory the program ends, and with it this one request.
void *allocate(size_t);

// serve.c: listens until it is ended; the sockets of server and keepers.
int serve(const char *socket_path);
// A listening socket at a path that nothing is at, or -1.
int listen_at(const char *path);
// Whether somebody takes connections there.
bool is_answered(const char *path);
// The path of a keeper's socket. False for an id that can have none.
bool keeper_path(char *path, size_t size, const char *directory, const char *id);

// place.c: a listening socket of a worker that stays, beside the server's; it does not block. What is there is replaced if nobody listens. 0, or an errno:
// EEXIST if somebody does.
int take_place(const char *directory, const char *path, int *listener);
// Of a worker that stays: of a session of its own, deaf to what is sent to all processes, and closed to those of its own user.
void settle_apart(void);

// keeper.c: in a child of the server. `request` is the payload of START, behind the version; `directory` is where the server's socket is. Returns
// when the keeper may end.
void keep_process(int connection, const char *directory, struct reader *request);

// forward.c: in a child of the server. Returns when the forwarder may end.
void forward_ports(int connection, const char *directory, struct reader *request);

// files.c, tree.c, watch.c: in a child of the server.
void serve_file_request(int connection, uint8_t type, struct reader *request);
void serve_tree_read(int connection, struct reader *request);
void serve_tree_write(int connection, struct reader *request);
void serve_watch(int connection, struct reader *request);

#endif
