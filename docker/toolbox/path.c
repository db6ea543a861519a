// Where a path leads. The kernel resolves all but the link at the end of a path that is to be replaced, which it would only follow by opening what is there.

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// As the kernel's.
#define MOST_LINKS 40

// Each directory that a path leads through, from a directory on, made where it is missing.
static int make_all(int from, const char *path) {
  char *start = strdup(path);
  if (start == NULL) return ENOMEM;
  int error = 0;
  for (char *at = start + strspn(start, "/"); error == 0 && *at != 0;) {
    char *end = at + strcspn(at, "/");
    char kept = *end;
    *end = 0;
    if (mkdirat(from, start, 0755) != 0 && errno != EEXIST) error = errno;
    *end = kept;
    at = end + strspn(end, "/");
  }
  free(start);
  return error;
}

int make_directory(const char *path, mode_t mode, bool parents) {
  if (mkdir(path, mode) == 0) return 0;
  if (errno != ENOENT || !parents) return errno;
  char *above = strdup(path);
  if (above == NULL) return ENOMEM;
  size_t length = strlen(above);
  while (length > 1 && above[length - 1] == '/') above[--length] = 0;
  char *slash = strrchr(above, '/');
  if (slash != NULL) *slash = 0;
  int error = make_all(AT_FDCWD, above);
  free(above);
  if (error != 0) return error;
  return mkdir(path, mode) == 0 ? 0 : errno;
}

// The directory of a path's last name, from a directory on; the name is left in `path`.
static int open_parent(int from, char *path, const char **name, bool parents, int *opened) {
  char *slash = strrchr(path, '/');
  *name = slash == NULL ? path : slash + 1;
  if (**name == 0 || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) return EISDIR;
  if (strlen(*name) > NAME_MAX) return ENAMETOOLONG;
  const char *directory = ".";
  if (slash == path) directory = "/";
  else if (slash != NULL) {
    *slash = 0;
    directory = path;
  }
  *opened = openat(from, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (*opened < 0 && errno == ENOENT && parents) {
    int error = make_all(from, directory);
    if (error != 0) return error;
    *opened = openat(from, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  return *opened < 0 ? errno : 0;
}

int find_place(struct place *place, const char *path, bool follow, bool parents) {
  char left[MOST_PATH];
  if (strlen(path) >= sizeof left) return ENAMETOOLONG;
  strcpy(left, path);
  int from = AT_FDCWD;
  for (int links = 0; links <= MOST_LINKS; links++) {
    const char *name;
    int directory;
    int error = open_parent(from, left, &name, parents, &directory);
    if (error != 0) return error;
    if (from != AT_FDCWD) close(from);
    from = directory;
    char target[MOST_PATH];
    ssize_t length = follow ? readlinkat(directory, name, target, sizeof target - 1) : -1;
    if (length < 0) {
      place->directory = directory;
      strcpy(place->name, name);
      return 0;
    }
    target[length] = 0;
    strcpy(left, target);
  }
  return ELOOP;
}
