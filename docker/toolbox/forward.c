// The forwarder: carries connections to the ports of the sandbox, all in one process. It is what the worker of FORWARD becomes, and ends when nobody had a
// connection for some time.

#include "forward.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000ULL
#define MOST_TUNNELS 1024
// Beyond them, that many are told so. Further ones are closed.
#define MOST_SURPLUS 8
// Descriptors beside those of tunnels: standard streams, listener, poll, pipe, surplus.
#define OTHER_DESCRIPTORS (8 + MOST_SURPLUS)
#define MOST_EVENTS 64
// How often those that are given up after a time are looked at.
#define LOOK_MS 500
#define FIRST_MS 5000

uint64_t forward_now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000ULL + (uint64_t)time.tv_nsec;
}

static size_t most_tunnels(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < OTHER_DESCRIPTORS + 2) return 1;
  size_t most = (size_t)(limit.rlim_cur - OTHER_DESCRIPTORS) / 2;
  return most < MOST_TUNNELS ? most : MOST_TUNNELS;
}

// True if somebody came.
static bool accept_all(struct forwarder *forwarder) {
  bool has_come = false;
  for (;;) {
    int outside = accept4(forwarder->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (outside < 0 && errno == ECONNABORTED) continue;
    if (outside < 0) {
      // out of memory, or of the host's descriptors: over after a while
      if (errno != EAGAIN && errno != EINTR) usleep(10000);
      return has_come;
    }
    has_come = true;
    if (forwarder->count < forwarder->most + MOST_SURPLUS) open_tunnel(forwarder, outside);
    else close(outside);
  }
}

static void take_event(struct forwarder *forwarder, const struct epoll_event *event) {
  struct end *end = event->data.ptr;
  if (end == NULL) {
    accept_all(forwarder);
    return;
  }
  // whatever is broken is found by the next read or write
  if (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) end->can_read = true;
  if (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) end->can_write = true;
  // who let go of it before the port has ended takes nothing more
  struct tunnel *tunnel = end->tunnel;
  bool is_gone = end == &tunnel->outside && (event->events & (EPOLLHUP | EPOLLERR));
  if (is_gone && (!tunnel->has_ended || tunnel->state == DRAINING)) tunnel->state = OVER;
  tunnel->is_ready = true;
}

// Moves those that can be, once, and lets go of those that are over. True if some can be moved further.
static bool move_all(struct forwarder *forwarder, bool is_time) {
  bool is_more = false;
  uint64_t time = is_time ? forward_now() : 0;
  for (struct tunnel **at = &forwarder->tunnels; *at != NULL;) {
    struct tunnel *tunnel = *at;
    if (tunnel->state != OPEN && tunnel->state != OVER && time > tunnel->until) {
      if (tunnel->state == DRAINING) tunnel->state = OVER;
      else fail_tunnel(tunnel, ETIMEDOUT, tunnel->state == GREETING ? "request" : "connect");
    } else if (tunnel->is_ready) {
      tunnel->is_ready = false;
      move_tunnel(forwarder, tunnel);
    }
    is_more = is_more || tunnel->is_ready;
    if (tunnel->state == OVER) {
      *at = tunnel->next;
      free_tunnel(tunnel);
      forwarder->count--;
    } else {
      at = &tunnel->next;
    }
  }
  return is_more;
}

static bool has_unsettled(const struct forwarder *forwarder) {
  for (const struct tunnel *tunnel = forwarder->tunnels; tunnel != NULL; tunnel = tunnel->next) {
    if (tunnel->state != OPEN) return true;
  }
  return false;
}

// Until nobody has had a connection for so long; who had it started has at least that time for the first.
static void carry(struct forwarder *forwarder, uint64_t idle_ms, uint64_t first_ms) {
  uint64_t most_ms = idle_ms > first_ms ? idle_ms : first_ms;
  uint64_t used = forward_now();
  uint64_t looked = used;
  bool is_more = false;
  for (;;) {
    bool is_idle = forwarder->count == 0;
    int wait = is_more ? 0 : is_idle ? (int)(most_ms < INT32_MAX ? most_ms : INT32_MAX) : has_unsettled(forwarder) ? LOOK_MS : -1;
    struct epoll_event events[MOST_EVENTS];
    int count = epoll_wait(forwarder->poll, events, MOST_EVENTS, wait);
    for (int i = 0; i < count; i++) take_event(forwarder, &events[i]);
    uint64_t time = forward_now();
    bool is_time = time - looked >= LOOK_MS * NS_PER_MS;
    if (is_time) looked = time;
    is_more = move_all(forwarder, is_time);
    if (!is_idle || forwarder->count > 0) {
      used = time;
      most_ms = idle_ms;
    } else if (time - used >= most_ms * NS_PER_MS) {
      return;
    }
  }
}

void forward_ports(int connection, const char *directory, struct reader *request) {
  struct forwarder forwarder = {.listener = -1, .most = most_tunnels()};
  char path[108];
  uint64_t idle_ms = read_u32(request);
  int length = snprintf(path, sizeof path, "%s/forward.sock", directory);
  if (request->bad || length < 0 || (size_t)length >= sizeof path) return send_error(connection, EPROTO, "request", "");
  settle_apart();
  int error = take_place(directory, path, &forwarder.listener);
  if (error != 0) return send_error(connection, error, "place", "");
  forwarder.poll = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  if (forwarder.poll < 0 || epoll_ctl(forwarder.poll, EPOLL_CTL_ADD, forwarder.listener, &event) != 0) {
    error = errno;
    unlink(path);
    return send_error(connection, error, "place", "");
  }
  struct writer writer = {0};
  write_begin(&writer, F_READY);
  send_frame(connection, &writer);
  close(connection);
  carry(&forwarder, idle_ms, FIRST_MS);
  // who looks for it from now on has another started; who had found it before is still served
  unlink(path);
  while (accept_all(&forwarder)) carry(&forwarder, 0, 0);
}
