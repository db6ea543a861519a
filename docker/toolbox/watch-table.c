// The directories that are watched, by the kernel's number of each, and those that are yet to be looked at.

#include "watch-table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *copy_of(const char *path) {
  char *copy = strdup(path);
  if (copy == NULL) _exit(70);
  return copy;
}

static struct watched **bucket_of(struct table *table, int number) { return &table->buckets[(unsigned)number % TABLE_BUCKETS]; }

void table_put(struct table *table, int number, const char *path) {
  table_remove(table, number);
  struct watched **bucket = bucket_of(table, number);
  struct watched *one = allocate(sizeof *one);
  *one = (struct watched){.next = *bucket, .number = number, .path = copy_of(path)};
  *bucket = one;
  table->count++;
}

const char *table_path(const struct table *table, int number) {
  for (const struct watched *one = table->buckets[(unsigned)number % TABLE_BUCKETS]; one != NULL; one = one->next)
    if (one->number == number) return one->path;
  return NULL;
}

static void drop(struct table *table, struct watched **at) {
  struct watched *one = *at;
  *at = one->next;
  free(one->path);
  free(one);
  table->count--;
}

void table_remove(struct table *table, int number) {
  for (struct watched **at = bucket_of(table, number); *at != NULL; at = &(*at)->next)
    if ((*at)->number == number) return drop(table, at);
}

static bool is_below(const char *path, const char *above) {
  size_t length = strlen(above);
  return strncmp(path, above, length) == 0 && (path[length] == 0 || path[length] == '/');
}

int table_take_below(struct table *table, const char *path) {
  for (size_t bucket = 0; bucket < TABLE_BUCKETS; bucket++)
    for (struct watched **at = &table->buckets[bucket]; *at != NULL; at = &(*at)->next)
      if (is_below((*at)->path, path)) {
        int number = (*at)->number;
        drop(table, at);
        return number;
      }
  return -1;
}

void table_clear(struct table *table) {
  for (size_t bucket = 0; bucket < TABLE_BUCKETS; bucket++)
    while (table->buckets[bucket] != NULL) drop(table, &table->buckets[bucket]);
}

void queue_push(struct queue *queue, const char *path) {
  if (queue->count == queue->room) {
    queue->room = queue->room == 0 ? 64 : queue->room * 2;
    queue->paths = realloc(queue->paths, queue->room * sizeof(char *));
    if (queue->paths == NULL) _exit(70);
  }
  queue->paths[queue->count++] = copy_of(path);
}

char *queue_shift(struct queue *queue) {
  if (queue->start < queue->count) return queue->paths[queue->start++];
  free(queue->paths);
  *queue = (struct queue){0};
  return NULL;
}
