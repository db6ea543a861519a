// What the rooms of files and trees share. Each request is served in a process of its own, so what it holds when it is over needs no release.
#ifndef FILES_H
#define FILES_H

#include "toolbox.h"

#include <limits.h>
#include <sys/stat.h>

// As the kernel's limit, that NUL included. Unit: bytes.
#define MOST_PATH PATH_MAX

// Frames on their way, sent together: a page of names is not worth a system call each.
struct outbox {
  int connection;
  struct writer frame;
  uint8_t *bytes;
  size_t length;
};

void outbox_begin(struct outbox *, int connection);
// Takes the frame that was made in `frame`. False if the other side is gone.
bool outbox_add(struct outbox *);
bool outbox_flush(struct outbox *);

// More than one frame of data may be on its way: the next is read while the daemon takes the last.
void send_ahead(int connection);
// ERROR, then whatever still comes is taken and dropped until the other side closes, for a bounded time: one that is sending must not lose the answer.
void refuse(int connection, int error, const char *operation, const char *path);
// Whether the other side has closed: looked at now and then by what takes long.
bool is_gone(int connection);

// The payload of INFO, behind what the frame holds already. `target` is of a link.
void write_info(struct writer *, const char *path, const struct stat *, const char *target);
void send_info(int connection, const char *path, const struct stat *);
#define ETAG_SIZE 96
void etag_of(char etag[ETAG_SIZE], const struct stat *);
// The target of a link, in memory of its own; empty if it is none.
char *link_target(int directory, const char *name);

// An error's number for what is not what is asked of: EISDIR for a directory, EINVAL for all others.
int wrong_type(const struct stat *);

// A name in a directory that is open.
struct place {
  int directory;
  char name[NAME_MAX + 1];
};

// Where a path leads, the link at its end followed if asked, whether something is there or not. With `parents` directories above it are made. Returns 0 or an error.
int find_place(struct place *, const char *path, bool follow, bool parents);
// The directory at a path, and with `parents` those above it, made where they are missing. Returns 0 or an error.
int make_directory(const char *path, mode_t mode, bool parents);

// A file that has no name yet, or one that nobody looks for, until it is whole.
struct draft {
  int file;
  int directory;
  // empty where the file system can keep a file without a name
  char name[32];
};

#define DRAFT_PREFIX ".sandboxd-"

// Returns 0 or an error, as all of these.
int draft_begin(struct draft *, int directory);
// Gives it its name: EEXIST where something is there and `replace` is false.
int draft_place(struct draft *, const char *name, bool replace);
void draft_drop(struct draft *);

// `together`: many in a frame.
void serve_list(int connection, const char *path, uint32_t limit, const char *after, bool together);
void serve_read(int connection, const char *path, uint64_t offset, uint64_t length);
void serve_remove(int connection, const char *path, bool recursive);
void serve_write(int connection, struct reader *request);
// All of it, from where the file is. Returns 0 or an error.
int write_all(int file, const uint8_t *bytes, size_t size);

#endif
