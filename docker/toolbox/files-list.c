// LIST_DIRECTORY: a page of a directory in order of name. Of all its names only the page's are held.

#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_PAGE 10000
#define LOOK_EVERY 1024
// More are begun in a frame until it has that much. Unit: bytes.
#define TOGETHER_BYTES 65536

// The smallest names so far, the largest of them first: a heap.
struct page {
  char **names;
  uint32_t count;
  uint32_t limit;
  bool has_more;
};

static void sink(struct page *page, uint32_t at) {
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= page->count) return;
    if (child + 1 < page->count && strcmp(page->names[child + 1], page->names[child]) > 0) child++;
    if (strcmp(page->names[at], page->names[child]) >= 0) return;
    char *name = page->names[at];
    page->names[at] = page->names[child];
    page->names[child] = name;
    at = child;
  }
}

static void rise(struct page *page, uint32_t at) {
  while (at > 0 && strcmp(page->names[(at - 1) / 2], page->names[at]) < 0) {
    char *name = page->names[at];
    page->names[at] = page->names[(at - 1) / 2];
    page->names[(at - 1) / 2] = name;
    at = (at - 1) / 2;
  }
}

static void consider(struct page *page, const char *name) {
  if (page->count == page->limit) {
    page->has_more = true;
    if (strcmp(name, page->names[0]) >= 0) return;
    free(page->names[0]);
    page->names[0] = strdup(name);
    if (page->names[0] == NULL) _exit(70);
    return sink(page, 0);
  }
  page->names[page->count] = strdup(name);
  if (page->names[page->count] == NULL) _exit(70);
  rise(page, page->count++);
}

static int in_order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool send_page(int connection, int directory, const struct page *page, bool together) {
  struct outbox outbox;
  outbox_begin(&outbox, connection);
  uint64_t sent = 0;
  bool begun = false;
  for (uint32_t i = 0; i < page->count; i++) {
    struct stat found;
    // gone since it was read
    if (fstatat(directory, page->names[i], &found, AT_SYMLINK_NOFOLLOW) != 0) continue;
    char *target = S_ISLNK(found.st_mode) ? link_target(directory, page->names[i]) : NULL;
    if (!begun) write_begin(&outbox.frame, together ? F_INFOS : F_INFO);
    write_info(&outbox.frame, page->names[i], &found, target == NULL ? "" : target);
    free(target);
    begun = together && outbox.frame.length < TOGETHER_BYTES;
    if (!begun && !outbox_add(&outbox)) return false;
    sent++;
  }
  if (begun && !outbox_add(&outbox)) return false;
  if (page->has_more) {
    write_begin(&outbox.frame, F_MORE);
    write_str(&outbox.frame, page->names[page->count - 1]);
    if (!outbox_add(&outbox)) return false;
  }
  write_begin(&outbox.frame, F_DONE);
  write_u64(&outbox.frame, sent);
  write_u64(&outbox.frame, 0);
  return outbox_add(&outbox) && outbox_flush(&outbox);
}

void serve_list(int connection, const char *path, uint32_t limit, const char *after, bool together) {
  if (limit == 0 || limit > MOST_PAGE) return refuse(connection, EPROTO, "request", "");
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *opened = directory < 0 ? NULL : fdopendir(directory);
  if (opened == NULL) return refuse(connection, errno, "open", path);
  struct page page = {.names = allocate(limit * sizeof(char *)), .limit = limit};
  uint64_t seen = 0;
  errno = 0;
  for (struct dirent *entry = readdir(opened); entry != NULL; errno = 0, entry = readdir(opened)) {
    if (++seen % LOOK_EVERY == 0 && is_gone(connection)) return;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (strcmp(entry->d_name, after) > 0) consider(&page, entry->d_name);
  }
  if (errno != 0) return refuse(connection, errno, "read", path);
  qsort(page.names, page.count, sizeof(char *), in_order);
  send_page(connection, directory, &page, together);
}
