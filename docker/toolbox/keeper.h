// What the rooms of the keeper share. One keeper holds one process.
#ifndef KEEPER_H
#define KEEPER_H

#include "toolbox.h"

#include <sys/resource.h>
#include <sys/types.h>

#define MOST_INPUT 262144
// Connections that have not said yet what they want. More of them than the daemon ever has is a program of the sandbox's.
#define MOST_CALLERS 4

enum stream { STDOUT = 1, STDERR = 2, TERMINAL = 3 };
enum cause { CAUSE_SELF = 0, CAUSE_TIMEOUT = 1, CAUSE_ORPHANED = 2, CAUSE_SIGNAL = 3 };
enum scope { SCOPE_PROCESS = 0, SCOPE_GROUP = 1, SCOPE_TREE = 2 };

// How the end of a process is brought about.
enum ending { NOT_ENDING, ASKED, KILLING };

// Nanoseconds of the monotonic clock; 0 is never.
typedef uint64_t moment;

// A frame with a sequence of its own, kept until it was acknowledged: OUTPUT or EXIT.
struct chunk {
  struct chunk *next;
  uint64_t sequence;
  uint8_t *frame;
  size_t length;
  size_t room;
  enum stream stream;
  // some of it was sent to somebody: it stays as it is
  bool touched;
};

// Where output comes from; -1 once it is at its end.
struct source {
  int fd;
  enum stream stream;
  // of what was written before the process ended, what is to be read yet; at most that, since its descendants may write on
  size_t left;
};

struct connection {
  int socket;
  uint8_t *in;
  size_t in_length;
  size_t in_room;
  // a caller is let go then
  moment until;
};

struct keeper {
  // what was asked for
  char path[108];
  uint64_t timeout_ns;
  uint64_t grace_ns;
  uint64_t orphan_ns;
  uint64_t wait_ns;
  size_t retain_bytes;
  size_t frame_bytes;

  // the process
  pid_t pid;
  bool has_ended;
  bool has_children;
  int64_t started_ns;
  moment started;
  int64_t ended_ns;
  moment ended;
  int wait_status;
  struct rusage usage;
  uint64_t signals_sent;
  enum cause cause;
  enum ending ending;
  moment ending_next;
  moment ending_until;
  moment timeout_at;
  moment orphan_at;

  // keeper-output.c
  struct source sources[2];
  struct chunk *oldest;
  struct chunk *newest;
  uint64_t last_sequence;
  uint64_t output_bytes;
  size_t held_bytes;
  size_t held_frames;
  bool is_dropping;
  moment stopped_at;
  moment trim_at;
  bool exit_is_told;

  // keeper-input.c; a terminal's input is its output's descriptor
  int input;
  uint8_t *input_bytes;
  size_t input_length;
  uint64_t input_offset;
  bool input_closes;
  uint64_t input_close_at;
  bool input_blocked;

  // keeper-terminal.c
  int terminal;
  int terminal_slave;
  uint16_t rows;
  uint16_t columns;
  moment repaint_at;

  // keeper-link.c
  int listener;
  struct connection link;
  struct connection callers[MOST_CALLERS];
  // what is sent before the next chunk
  struct writer said;
  struct writer saying;
  size_t saying_sent;
  bool taken_is_due;
  // the next to be sent, how much of it was, and one that was dropped half sent
  struct chunk *cursor;
  struct chunk *torn;
  size_t sent;
  bool link_blocked;
  bool is_forgotten;
};

// keeper.c
moment now(void);
// In so many nanoseconds; never, if that is further away than the clock goes.
moment after(uint64_t ns);

// keeper-start.c: makes a process of the request, or tells the connection why not.
bool start_process(struct keeper *, const char *directory, int connection, struct reader *request);

// keeper-output.c
bool may_read(const struct keeper *);
void read_source(struct keeper *, struct source *);
void close_source(struct keeper *, struct source *);
// The program is held back from now on while too much is held, until end_waiting.
void begin_waiting(struct keeper *);
void end_waiting(struct keeper *);
// What is in the sources when the process ends is what EXIT waits for.
void measure_sources(struct keeper *);
bool is_drained(const struct keeper *);
void tell_exit(struct keeper *);
// Frees all up to a sequence, but neither what is still to be sent nor the exit.
void acknowledge(struct keeper *, uint64_t sequence);
void free_chunk(struct chunk *);

// keeper-input.c
bool take_input(struct keeper *, uint64_t offset, const uint8_t *bytes, size_t length);
void close_input_at(struct keeper *, uint64_t offset);
void write_input(struct keeper *);
void end_input(struct keeper *);
// Forgets what was not taken: who connects anew sends it again.
void drop_input(struct keeper *);

// keeper-terminal.c
int open_terminal(int *slave, uint16_t rows, uint16_t columns);
int resize_terminal(struct keeper *, uint16_t rows, uint16_t columns, bool repaint);
void finish_repaint(struct keeper *);

// keeper-link.c
bool is_attached(const struct keeper *);
void attach(struct keeper *, struct connection *, uint64_t sequence);
void detach(struct keeper *);
void accept_caller(struct keeper *);
void hear_caller(struct keeper *, struct connection *);
void hang_up(struct connection *);
void hear_link(struct keeper *);
void send_to_link(struct keeper *);
bool has_to_send(const struct keeper *);
// Whether frames are read from the link: not while their answers are not taken.
bool may_hear(const struct keeper *);

// keeper-ending.c
void reap(struct keeper *);
// 0, or an errno.
int signal_process(struct keeper *, int signal, enum scope);
void end_process(struct keeper *, enum cause, uint64_t grace_ns);
void go_on_ending(struct keeper *);

// process-tree.c: sends a signal once to each descendant of the caller. Returns how many that are alive it found.
size_t signal_tree(int signal);

#endif
