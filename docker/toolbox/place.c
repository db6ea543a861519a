// Workers that stay: each has a socket beside the server's, and is left alone by the sandbox's own programs as far as that can be.

#include "toolbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <unistd.h>

// Somebody of the sandbox's may hold the lock.
#define LOCK_TRIES 400
#define LOCK_PAUSE_US 5000

// They take turns, or one would remove what another has just made.
int take_place(const char *directory, const char *path, int *listener) {
  int lock = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock < 0) return errno;
  for (int tries = 0; flock(lock, LOCK_EX | LOCK_NB) != 0; tries++) {
    if (tries == LOCK_TRIES || errno != EWOULDBLOCK) {
      close(lock);
      return EBUSY;
    }
    usleep(LOCK_PAUSE_US);
  }
  int error = 0;
  *listener = listen_at(path);
  if (*listener < 0 && errno == EADDRINUSE) {
    if (is_answered(path)) {
      errno = EEXIST;
    } else {
      unlink(path);
      *listener = listen_at(path);
    }
  }
  if (*listener < 0) error = errno;
  else fcntl(*listener, F_SETFL, O_NONBLOCK);
  close(lock);
  return error;
}

void settle_apart(void) {
  setsid();
  prctl(PR_SET_DUMPABLE, 0);
  for (int number = 1; number < NSIG; number++) {
    if (number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE || number == SIGABRT || number == SIGCHLD) continue;
    signal(number, SIG_IGN);
  }
}
