// The server: takes connections, and forks a worker for each, which takes one request. It knows of nothing that goes on.

#include "toolbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char keeper_prefix[] = "p-";
static const char keeper_suffix[] = ".sock";

static int socket_address(struct sockaddr_un *address, const char *path) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address->sun_path) return -1;
  strcpy(address->sun_path, path);
  return 0;
}

int listen_at(const char *path) {
  struct sockaddr_un address;
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -1;
  if (socket_address(&address, path) != 0) {
    errno = ENAMETOOLONG;
  } else if (bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && chmod(path, 0600) == 0 && listen(listener, SOMAXCONN) == 0) {
    return listener;
  }
  int error = errno;
  close(listener);
  errno = error;
  return -1;
}

bool is_answered(const char *path) {
  struct sockaddr_un address;
  if (socket_address(&address, path) != 0) return false;
  int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // one whose queue is full is there, too
  bool answered = probe >= 0 && (connect(probe, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN);
  if (probe >= 0) close(probe);
  return answered;
}

bool keeper_path(char *path, size_t size, const char *directory, const char *id) {
  if (*id == 0 || strchr(id, '/') != NULL) return false;
  int length = snprintf(path, size, "%s/%s%s%s", directory, keeper_prefix, id, keeper_suffix);
  return length > 0 && (size_t)length < size;
}

static void list_keepers(int connection, const char *directory) {
  DIR *opened = opendir(directory);
  if (opened == NULL) return send_error(connection, errno, "open", directory);
  struct writer writer = {0};
  uint64_t count = 0;
  for (struct dirent *entry = readdir(opened); entry != NULL; entry = readdir(opened)) {
    size_t length = strlen(entry->d_name);
    size_t around = sizeof keeper_prefix - 1 + sizeof keeper_suffix - 1;
    if (length <= around || strncmp(entry->d_name, keeper_prefix, sizeof keeper_prefix - 1) != 0) continue;
    if (strcmp(entry->d_name + length - (sizeof keeper_suffix - 1), keeper_suffix) != 0) continue;
    entry->d_name[length - (sizeof keeper_suffix - 1)] = 0;
    write_begin(&writer, F_HELD);
    write_str(&writer, entry->d_name + sizeof keeper_prefix - 1);
    if (!send_frame(connection, &writer)) return;
    count++;
  }
  send_done(connection, count, 0);
}

static void clear_keeper(int connection, const char *directory, struct reader *request) {
  char path[sizeof((struct sockaddr_un *)0)->sun_path];
  char *id = read_str(request);
  if (request->bad || !keeper_path(path, sizeof path, directory, id)) return send_error(connection, EPROTO, "request", "");
  if (!is_answered(path)) unlink(path);
  send_done(connection, 0, 0);
}

static void serve_request(int connection, const char *directory, pid_t server) {
  uint8_t *buffer = allocate(MOST_FRAME);
  uint8_t type;
  struct reader request;
  if (!receive_frame(connection, buffer, &type, &request)) return;
  if (read_u8(&request) != PROTOCOL_VERSION) return send_error(connection, EPROTONOSUPPORT, "version", "");
  switch (type) {
    case F_PING: {
      struct writer writer = {0};
      write_begin(&writer, F_PONG);
      write_u32(&writer, (uint32_t)server);
      send_frame(connection, &writer);
      return;
    }
    case F_START:
      return keep_process(connection, directory, &request);
    case F_LIST:
      return list_keepers(connection, directory);
    case F_CLEAR:
      return clear_keeper(connection, directory, &request);
    case F_FORWARD:
      return forward_ports(connection, directory, &request);
    case F_WATCH:
      return serve_watch(connection, &request);
    case F_TREE_READ:
      return serve_tree_read(connection, &request);
    case F_TREE_WRITE:
      return serve_tree_write(connection, &request);
    default:
      return serve_file_request(connection, type, &request);
  }
}

// Says that no worker can be had. What was asked is read first: with bytes unread, closing breaks the connection, and the daemon may never
// see the answer.
static void refuse(int connection, int error) {
  struct timeval patience = {.tv_usec = 100000};
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  static uint8_t buffer[MOST_FRAME];
  uint8_t type;
  struct reader request;
  receive_frame(connection, buffer, &type, &request);
  send_error(connection, error, "fork", "");
}

// Nothing of the exec that started the server lives on in it, or in what it starts: streams of the engine's would stay open.
static void leave_exec(void) {
  int nothing = open("/dev/null", O_RDWR);
  for (int i = 0; i < 3 && nothing >= 0; i++) dup2(nothing, i);
  close_range(3, ~0U, 0);
}

int serve(const char *socket_path) {
  leave_exec();
  // the kernel reaps the workers
  struct sigaction reap = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
  sigaction(SIGCHLD, &reap, NULL);
  signal(SIGPIPE, SIG_IGN);
  // what a terminal or a group is sent is not meant for it
  setsid();
  char *path = strdup(socket_path);
  if (path == NULL) return 70;
  const char *directory = dirname(path);
  if (is_answered(socket_path)) return 0;
  unlink(socket_path);
  int listener = listen_at(socket_path);
  if (listener < 0) return 71;
  pid_t server = getpid();
  for (;;) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (connection < 0) {
      // out of descriptors or memory: over once a worker has ended
      usleep(10000);
      continue;
    }
    pid_t worker = fork();
    if (worker == 0) {
      close(listener);
      signal(SIGCHLD, SIG_DFL);
      serve_request(connection, directory, server);
      _exit(0);
    }
    if (worker < 0) refuse(connection, errno);
    close(connection);
  }
}
