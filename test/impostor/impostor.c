/* What a tenant may run in the place of the toolbox: it takes the socket over, and answers in a way of its own. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char place[] = "/.sandboxd/run/toolbox.sock";
static const char aside[] = "/.sandboxd/run/aside.sock";

static int listen_at(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, path);
  unlink(path);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 8) != 0) return -1;
  return listener;
}

/* Frames without an end, of a type that says everything is well. */
static void send_endless(int connection) {
  static uint8_t frame[4 + 65536];
  uint32_t length = sizeof frame - 4;
  memcpy(frame, &length, 4);
  frame[4] = 0x23;
  while (send(connection, frame, sizeof frame, MSG_NOSIGNAL) > 0) {
  }
}

static void answer(int connection, const char *mode) {
  char request[256];
  if (recv(connection, request, sizeof request, 0) <= 0) return;
  if (strcmp(mode, "garbage") == 0) send(connection, "HTTP/1.1 200 OK\r\n\r\n", 19, MSG_NOSIGNAL);
  if (strcmp(mode, "nothing") == 0) send(connection, "\0\0\0\0", 4, MSG_NOSIGNAL);
  if (strcmp(mode, "half") == 0) send(connection, "\x10\0\0\0\x20", 5, MSG_NOSIGNAL);
  if (strcmp(mode, "endless") == 0) send_endless(connection);
  if (strcmp(mode, "silent") == 0) pause();
}

/* The name is a socket, a link out of the sandbox's files, a directory, a file, and absent, as fast as can be. */
static void swap(void) {
  static const char *const targets[] = {"/run/docker.sock", "/var/run/docker.sock", "../../proc/1/root", aside, "/.sandboxd/toolbox"};
  for (unsigned turn = 0;; turn++) {
    unlink(place);
    rmdir(place);
    if (turn % 3 == 0) mkdir(place, 0700);
    else if (turn % 3 == 1) symlink(targets[turn % 5], place);
    else close(listen_at(place));
  }
}

int main(int count, char **arguments) {
  const char *mode = count > 1 ? arguments[1] : "idle";
  if (strcmp(mode, "idle") == 0) {
    for (;;) pause();
  }
  if (strcmp(mode, "swap") == 0) {
    listen_at(aside);
    swap();
  }
  if (strcmp(mode, "kill") == 0 && count > 2) return kill(atoi(arguments[2]), SIGKILL);
  if (strcmp(mode, "crowd") == 0) {
    for (pid_t child = 1; child > 0;) {
      child = fork();
      if (child == 0) for (;;) pause();
    }
    for (;;) pause();
  }
  if (strcmp(mode, "link") == 0) {
    unlink(place);
    listen_at(aside);
    return symlink(aside, place);
  }
  int listener = listen_at(place);
  if (listener < 0) return 1;
  if (strcmp(mode, "deaf") == 0) {
    for (;;) pause();
  }
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int connection = accept(listener, NULL, NULL);
    if (connection >= 0 && fork() == 0) {
      answer(connection, mode);
      return 0;
    }
    close(connection);
  }
}
