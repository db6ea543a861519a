// Output: read in frames, which are kept until they were acknowledged. Who reads them in time is keeper-link.c's matter; how much is held, and
// whether the program waits or the oldest is dropped, is decided here.

#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

// length, type, sequence, offset, stream
#define HEADER 22
// Of frames that are held, however small: a program that writes byte by byte takes no more memory than another.
#define MOST_FRAMES 16384
// More than a terminal can hold back: what its buffers have cannot be asked for.
#define TERMINAL_BUFFERS 131072
// A program that wrote that much gets a larger pipe, which a quiet one would keep from others: their user has an allowance.
#define BULK_BYTES 1048576
#define BULK_PIPE 524288

static void put(uint8_t *at, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; i++) at[i] = (uint8_t)(value >> (8 * i));
}

void free_chunk(struct chunk *chunk) {
  if (chunk == NULL) return;
  free(chunk->frame);
  free(chunk);
}

static bool is_output(const struct chunk *chunk) { return chunk->frame[4] == F_OUTPUT; }

static void append(struct keeper *keeper, struct chunk *chunk) {
  if (keeper->newest == NULL) keeper->oldest = chunk;
  else keeper->newest->next = chunk;
  keeper->newest = chunk;
  if (keeper->cursor == NULL && is_attached(keeper)) keeper->cursor = chunk;
}

static void remove_oldest(struct keeper *keeper) {
  struct chunk *chunk = keeper->oldest;
  keeper->oldest = chunk->next;
  if (keeper->oldest == NULL) keeper->newest = NULL;
  keeper->held_bytes -= chunk->length - HEADER;
  keeper->held_frames--;
  if (chunk == keeper->cursor) {
    keeper->cursor = chunk->next;
    if (keeper->torn == NULL && keeper->sent > 0) {
      // the rest of the frame follows, or the link is out of step
      keeper->torn = chunk;
      return;
    }
  }
  free_chunk(chunk);
}

static bool is_full(const struct keeper *keeper) {
  return keeper->held_bytes >= keeper->retain_bytes || keeper->held_frames >= MOST_FRAMES;
}

// Nobody takes it, or not fast enough.
static bool drops(const struct keeper *keeper) { return !is_attached(keeper) || keeper->is_dropping; }

bool may_read(const struct keeper *keeper) { return keeper->exit_is_told || drops(keeper) || !is_full(keeper); }

static void drop_beyond(struct keeper *keeper) {
  if (!drops(keeper)) return;
  while (keeper->oldest != keeper->newest && is_output(keeper->oldest) &&
         (keeper->held_bytes > keeper->retain_bytes || keeper->held_frames > MOST_FRAMES)) {
    remove_oldest(keeper);
  }
}

void begin_waiting(struct keeper *keeper) {
  keeper->is_dropping = false;
  keeper->stopped_at = is_full(keeper) ? now() : 0;
}

void end_waiting(struct keeper *keeper) {
  keeper->is_dropping = true;
  keeper->stopped_at = 0;
}

void acknowledge(struct keeper *keeper, uint64_t sequence) {
  bool freed = false;
  while (keeper->oldest != NULL && keeper->oldest != keeper->cursor && keeper->oldest->sequence <= sequence && is_output(keeper->oldest)) {
    remove_oldest(keeper);
    freed = true;
  }
  if (freed) begin_waiting(keeper);
}

static void give_room(struct chunk *chunk, size_t room) {
  chunk->frame = realloc(chunk->frame, room);
  if (chunk->frame == NULL) _exit(70);
  chunk->room = room;
}

// The frame that output of a stream goes to: the newest if nobody saw any of it, so that small writes do not become many frames.
static struct chunk *chunk_for(struct keeper *keeper, enum stream stream) {
  struct chunk *newest = keeper->newest;
  size_t most = HEADER + keeper->frame_bytes;
  if (newest != NULL && !newest->touched && newest->stream == stream && newest->length < most) {
    if (newest->room < most) give_room(newest, most);
    return newest;
  }
  struct chunk *chunk = allocate(sizeof *chunk);
  *chunk = (struct chunk){.stream = stream, .length = HEADER};
  give_room(chunk, most);
  return chunk;
}

static void keep(struct keeper *keeper, struct chunk *chunk, size_t count) {
  chunk->length += count;
  put(chunk->frame, chunk->length - 4, 4);
  if (chunk != keeper->newest) {
    chunk->sequence = ++keeper->last_sequence;
    chunk->frame[4] = F_OUTPUT;
    put(chunk->frame + 5, chunk->sequence, 8);
    put(chunk->frame + 13, keeper->output_bytes, 8);
    chunk->frame[21] = (uint8_t)chunk->stream;
    append(keeper, chunk);
    keeper->held_frames++;
  }
  if (chunk->length < chunk->room / 2) give_room(chunk, chunk->length);
  keeper->output_bytes += count;
  keeper->held_bytes += count;
  drop_beyond(keeper);
  if (is_attached(keeper) && !keeper->is_dropping) begin_waiting(keeper);
}

void close_source(struct keeper *keeper, struct source *source) {
  // a terminal's input is the same
  if (source->fd == keeper->input) end_input(keeper);
  if (source->fd == keeper->terminal) keeper->terminal = -1;
  close(source->fd);
  source->fd = -1;
  source->left = 0;
}

// A terminal gives out a little at a time: as much as there is, up to the size.
static ssize_t read_some(const struct source *source, uint8_t *bytes, size_t size) {
  size_t got = 0;
  for (;;) {
    ssize_t count = read(source->fd, bytes + got, size - got);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return got > 0 ? (ssize_t)got : count;
    got += (size_t)count;
    if (source->stream != TERMINAL || got == size) return (ssize_t)got;
  }
}

// Output after the exit was told is nobody's.
static void waste_source(struct keeper *keeper, struct source *source) {
  static uint8_t bytes[MOST_OUTPUT];
  ssize_t count = read_some(source, bytes, sizeof bytes);
  if (count == 0 || (count < 0 && errno != EAGAIN)) close_source(keeper, source);
}

void read_source(struct keeper *keeper, struct source *source) {
  if (keeper->exit_is_told) return waste_source(keeper, source);
  struct chunk *chunk = chunk_for(keeper, source->stream);
  size_t size = chunk->room - chunk->length;
  if (keeper->has_ended && size > source->left) size = source->left;
  ssize_t count = size == 0 ? 0 : read_some(source, chunk->frame + chunk->length, size);
  int error = errno;
  if (count > 0) {
    keep(keeper, chunk, (size_t)count);
    source->left -= keeper->has_ended ? (size_t)count : 0;
    if (keeper->output_bytes >= BULK_BYTES && keeper->output_bytes - (size_t)count < BULK_BYTES) fcntl(source->fd, F_SETPIPE_SZ, BULK_PIPE);
    return;
  }
  if (chunk != keeper->newest) free_chunk(chunk);
  if (size == 0) return;
  if (count < 0 && error == EAGAIN) source->left = 0;
  else close_source(keeper, source);
}

void measure_sources(struct keeper *keeper) {
  for (size_t i = 0; i < 2; i++) {
    struct source *source = &keeper->sources[i];
    int count = 0;
    if (source->fd < 0) continue;
    if (source->stream == TERMINAL) source->left = TERMINAL_BUFFERS;
    else if (ioctl(source->fd, FIONREAD, &count) == 0) source->left = (size_t)count;
  }
}

bool is_drained(const struct keeper *keeper) { return keeper->has_ended && keeper->sources[0].left == 0 && keeper->sources[1].left == 0; }

static uint64_t microseconds(struct timeval time) { return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec; }

void tell_exit(struct keeper *keeper) {
  struct writer writer = {0};
  struct chunk *chunk = allocate(sizeof *chunk);
  bool is_signaled = WIFSIGNALED(keeper->wait_status);
  *chunk = (struct chunk){.sequence = ++keeper->last_sequence, .touched = true};
  write_begin(&writer, F_EXIT);
  write_u64(&writer, chunk->sequence);
  write_u8(&writer, is_signaled ? 1 : 0);
  write_u32(&writer, (uint32_t)(is_signaled ? WTERMSIG(keeper->wait_status) : WEXITSTATUS(keeper->wait_status)));
  write_u8(&writer, (uint8_t)keeper->cause);
  write_u64(&writer, (keeper->ended - keeper->started) / 1000);
  write_u64(&writer, microseconds(keeper->usage.ru_utime));
  write_u64(&writer, microseconds(keeper->usage.ru_stime));
  write_u64(&writer, (uint64_t)keeper->usage.ru_maxrss * 1024);
  write_i64(&writer, keeper->ended_ns);
  write_end(&writer);
  chunk->frame = writer.bytes;
  chunk->length = writer.length;
  chunk->room = writer.room;
  append(keeper, chunk);
  keeper->exit_is_told = true;
}
