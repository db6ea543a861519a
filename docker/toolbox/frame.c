// Frames: how they are read, made, sent and received.

#include "toolbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void *allocate(size_t size) {
  void *memory = malloc(size == 0 ? 1 : size);
  if (memory == NULL) _exit(70);
  return memory;
}

static uint64_t read_number(struct reader *reader, size_t size) {
  if ((size_t)(reader->end - reader->at) < size) {
    reader->bad = true;
    reader->at = reader->end;
    return 0;
  }
  uint64_t value = 0;
  for (size_t i = 0; i < size; i++) value |= (uint64_t)reader->at[i] << (8 * i);
  reader->at += size;
  return value;
}

uint8_t read_u8(struct reader *reader) { return (uint8_t)read_number(reader, 1); }
uint16_t read_u16(struct reader *reader) { return (uint16_t)read_number(reader, 2); }
uint32_t read_u32(struct reader *reader) { return (uint32_t)read_number(reader, 4); }
uint64_t read_u64(struct reader *reader) { return read_number(reader, 8); }
int64_t read_i64(struct reader *reader) { return (int64_t)read_number(reader, 8); }

char *read_str(struct reader *reader) {
  size_t length = read_u32(reader);
  if ((size_t)(reader->end - reader->at) < length || memchr(reader->at, 0, length) != NULL) {
    reader->bad = true;
    length = 0;
  }
  char *text = allocate(length + 1);
  memcpy(text, reader->at, length);
  text[length] = 0;
  reader->at += length;
  return text;
}

char **read_list(struct reader *reader, uint32_t most) {
  uint32_t count = read_u32(reader);
  if (count > most) {
    reader->bad = true;
    count = 0;
  }
  char **list = allocate((count + 1) * sizeof(char *));
  for (uint32_t i = 0; i < count; i++) list[i] = read_str(reader);
  list[count] = NULL;
  return list;
}

static void write_raw(struct writer *writer, const void *bytes, size_t size) {
  if (writer->length + size > writer->room) {
    writer->room = (writer->length + size) * 2;
    writer->bytes = realloc(writer->bytes, writer->room);
    if (writer->bytes == NULL) _exit(70);
  }
  memcpy(writer->bytes + writer->length, bytes, size);
  writer->length += size;
}

static void write_number(struct writer *writer, uint64_t value, size_t size) {
  uint8_t bytes[8];
  for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(value >> (8 * i));
  write_raw(writer, bytes, size);
}

void write_begin(struct writer *writer, enum frame_type type) {
  writer->length = 0;
  write_number(writer, 0, 4);
  write_number(writer, type, 1);
}

void write_u8(struct writer *writer, uint8_t value) { write_number(writer, value, 1); }
void write_u16(struct writer *writer, uint16_t value) { write_number(writer, value, 2); }
void write_u32(struct writer *writer, uint32_t value) { write_number(writer, value, 4); }
void write_u64(struct writer *writer, uint64_t value) { write_number(writer, value, 8); }
void write_i64(struct writer *writer, int64_t value) { write_number(writer, (uint64_t)value, 8); }

void write_bytes(struct writer *writer, const void *bytes, size_t size) { write_raw(writer, bytes, size); }

void write_str(struct writer *writer, const char *text) {
  size_t length = strlen(text);
  write_u32(writer, (uint32_t)length);
  write_raw(writer, text, length);
}

void write_end(struct writer *writer) {
  uint32_t length = (uint32_t)(writer->length - 4);
  for (size_t i = 0; i < 4; i++) writer->bytes[i] = (uint8_t)(length >> (8 * i));
}

bool send_frame(int socket, struct writer *writer) {
  write_end(writer);
  for (size_t sent = 0; sent < writer->length;) {
    ssize_t count = send(socket, writer->bytes + sent, writer->length - sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    sent += (size_t)count;
  }
  return true;
}

static bool receive_all(int socket, uint8_t *bytes, size_t size) {
  for (size_t got = 0; got < size;) {
    ssize_t count = recv(socket, bytes + got, size - got, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    got += (size_t)count;
  }
  return true;
}

bool receive_frame(int socket, uint8_t *buffer, uint8_t *type, struct reader *payload) {
  uint8_t header[4];
  if (!receive_all(socket, header, 4)) return false;
  size_t length = (size_t)header[0] | (size_t)header[1] << 8 | (size_t)header[2] << 16 | (size_t)header[3] << 24;
  if (length < 1 || length > MOST_FRAME || !receive_all(socket, buffer, length)) return false;
  *type = buffer[0];
  *payload = (struct reader){.at = buffer + 1, .end = buffer + length, .bad = false};
  return true;
}

void send_error(int socket, int error, const char *operation, const char *path) {
  struct writer writer = {0};
  write_begin(&writer, F_ERROR);
  write_u32(&writer, (uint32_t)error);
  write_str(&writer, operation);
  write_str(&writer, path);
  send_frame(socket, &writer);
  free(writer.bytes);
}

void send_done(int socket, uint64_t a, uint64_t b) {
  struct writer writer = {0};
  write_begin(&writer, F_DONE);
  write_u64(&writer, a);
  write_u64(&writer, b);
  send_frame(socket, &writer);
  free(writer.bytes);
}
