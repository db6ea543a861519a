// Drafts: a file is written without a name, so that nothing is left of it whenever its writer ends, and gets its name when it is whole. Where a file system has no
// files without names, under one of its own.

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define MOST_TRIES 100

static void random_name(char name[32]) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
  uint8_t random[6] = {0};
  if (getrandom(random, sizeof random, GRND_NONBLOCK) < 0) memset(random, getpid() & 31, sizeof random);
  size_t at = strlen(DRAFT_PREFIX);
  memcpy(name, DRAFT_PREFIX, at);
  for (size_t i = 0; i < sizeof random; i++) name[at++] = letters[random[i] & 31];
  name[at] = 0;
}

int draft_begin(struct draft *draft, int directory) {
  *draft = (struct draft){.directory = directory};
  draft->file = openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (draft->file >= 0) return 0;
  // what other file systems and old kernels say to a flag that they do not know
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT) return errno;
  for (int tries = 0; tries < MOST_TRIES; tries++) {
    random_name(draft->name);
    draft->file = openat(directory, draft->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (draft->file >= 0) return 0;
    if (errno != EEXIST) break;
  }
  draft->name[0] = 0;
  return errno;
}

static int link_draft(struct draft *draft, const char *name) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", draft->file);
  return linkat(AT_FDCWD, path, draft->directory, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
}

int draft_place(struct draft *draft, const char *name, bool replace) {
  if (draft->name[0] == 0) {
    int error = link_draft(draft, name);
    if (error != EEXIST || !replace) return error;
    // a link replaces nothing, a name does
    for (int tries = 0; error == EEXIST && tries < MOST_TRIES; tries++) {
      random_name(draft->name);
      error = link_draft(draft, draft->name);
    }
    if (error != 0) {
      draft->name[0] = 0;
      return error;
    }
  }
  if (replace) {
    if (renameat(draft->directory, draft->name, draft->directory, name) != 0) return errno;
  } else if (renameat2(draft->directory, draft->name, draft->directory, name, RENAME_NOREPLACE) != 0) {
    if (errno != EINVAL) return errno;
    if (linkat(draft->directory, draft->name, draft->directory, name, 0) != 0) return errno;
    unlinkat(draft->directory, draft->name, 0);
  }
  draft->name[0] = 0;
  return 0;
}

void draft_drop(struct draft *draft) {
  if (draft->name[0] != 0) unlinkat(draft->directory, draft->name, 0);
  if (draft->file >= 0) close(draft->file);
  draft->name[0] = 0;
  draft->file = -1;
}
