// Input: bytes by their offset, so that sending again does no harm, to a pipe or to the terminal.

#include "keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void drop_input(struct keeper *keeper) {
  free(keeper->input_bytes);
  keeper->input_bytes = NULL;
  keeper->input_length = 0;
  keeper->input_closes = false;
}

void end_input(struct keeper *keeper) {
  if (keeper->input < 0) return;
  if (keeper->input != keeper->terminal) close(keeper->input);
  keeper->input = -1;
  keeper->taken_is_due = true;
  drop_input(keeper);
}

// Closes once all before the place asked for was taken.
static void close_if_due(struct keeper *keeper) {
  if (keeper->input >= 0 && keeper->input_closes && keeper->input_offset >= keeper->input_close_at) end_input(keeper);
}

bool take_input(struct keeper *keeper, uint64_t offset, const uint8_t *bytes, size_t length) {
  if (keeper->input < 0) {
    keeper->taken_is_due = true;
    return true;
  }
  uint64_t end = keeper->input_offset + keeper->input_length;
  if (offset > end) return false;
  uint64_t known = end - offset;
  if (known >= length) return true;
  bytes += known;
  length -= (size_t)known;
  if (keeper->input_length + length > MOST_INPUT) return false;
  keeper->input_bytes = realloc(keeper->input_bytes, keeper->input_length + length);
  if (keeper->input_bytes == NULL) _exit(70);
  memcpy(keeper->input_bytes + keeper->input_length, bytes, length);
  keeper->input_length += length;
  write_input(keeper);
  return true;
}

void close_input_at(struct keeper *keeper, uint64_t offset) {
  // always answered, also if it was closed before
  keeper->taken_is_due = true;
  if (keeper->input < 0) return;
  keeper->input_closes = true;
  keeper->input_close_at = offset;
  close_if_due(keeper);
}

void write_input(struct keeper *keeper) {
  size_t written = 0;
  keeper->input_blocked = false;
  while (keeper->input >= 0 && written < keeper->input_length) {
    ssize_t count = write(keeper->input, keeper->input_bytes + written, keeper->input_length - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return end_input(keeper);
    if (count <= 0) {
      keeper->input_blocked = true;
      break;
    }
    written += (size_t)count;
    keeper->input_offset += (uint64_t)count;
    keeper->taken_is_due = true;
  }
  keeper->input_length -= written;
  if (keeper->input_length > 0) memmove(keeper->input_bytes, keeper->input_bytes + written, keeper->input_length);
  else {
    free(keeper->input_bytes);
    keeper->input_bytes = NULL;
  }
  close_if_due(keeper);
}
