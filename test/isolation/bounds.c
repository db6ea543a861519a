/* What must run out inside the sandbox before it does outside. The limits to meet come from PROBE_* variables. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static long limit_of(const char *name) { return atol(getenv(name) ?: "0"); }

static void check_rlimit(const char *check, int resource, long expected) {
  struct rlimit limit;
  getrlimit(resource, &limit);
  report((long)limit.rlim_cur == expected && (long)limit.rlim_max == expected, check, "%ld", (long)limit.rlim_max);
}

/* Fills a directory with empty files, then one file with bytes; both must end in ENOSPC at the bound. */
static void check_full(const char *directory, long inodes, long bytes) {
  char path[128], check[128];
  long made = 0;
  for (;; made++) {
    snprintf(path, sizeof path, "%s/f%ld", directory, made);
    int fd = made > inodes ? -1 : open(path, O_CREAT | O_WRONLY, 0600);
    if (fd < 0) break;
    close(fd);
  }
  snprintf(check, sizeof check, "13.inodes%s", directory);
  report(errno == ENOSPC && made <= inodes && made > inodes / 2, check, "%ld of %ld, %s", made, inodes, error_name(errno));
  while (made-- > 0) {
    snprintf(path, sizeof path, "%s/f%ld", directory, made);
    unlink(path);
  }

  static char block[65536];
  snprintf(path, sizeof path, "%s/fill", directory);
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  long written = 0, got;
  while (written <= bytes && (got = write(fd, block, sizeof block)) > 0) written += got;
  snprintf(check, sizeof check, "13.bytes%s", directory);
  report(errno == ENOSPC && written <= bytes && written > bytes / 2, check, "%ld of %ld, %s", written, bytes, error_name(errno));
  close(fd);
  unlink(path);
}

/* A child that takes memory until it is stopped; what it had is in the shared page. */
static void check_memory(long bound) {
  volatile long *taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    const long step = 1 << 20;
    while (*taken <= 2 * bound) {
      char *memory = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED) break;
      memset(memory, 1, step);
      *taken += step;
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  report(killed && *taken < bound && *taken > bound / 2, "19.memory-bomb", "%ld of %ld", *taken, bound);
}

static void check_forks(long bound) {
  int gate[2];
  long made = 0;
  if (pipe(gate) != 0) return;
  fflush(stdout);
  while (made <= bound) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0) {
      char byte;
      close(gate[1]);
      _exit(read(gate[0], &byte, 1) < 0);
    }
    made++;
  }
  int error = errno;
  close(gate[1]);
  while (wait(NULL) > 0) {
  }
  report(error == EAGAIN && made < bound && made > bound / 2, "19.fork-bomb", "%ld of %ld, %s", made, bound, error_name(error));
}

void check_bounds(void) {
  check_rlimit("19.nofile", RLIMIT_NOFILE, limit_of("PROBE_OPEN_FILES"));
  check_rlimit("19.nproc", RLIMIT_NPROC, limit_of("PROBE_PROCESSES_PER_USER"));
  check_rlimit("19.core", RLIMIT_CORE, 0);
  check_full("/tmp", limit_of("PROBE_TMPFS_INODES"), limit_of("PROBE_TMPFS_BYTES"));
  check_full("/volume", limit_of("PROBE_TMPFS_INODES"), limit_of("PROBE_TMPFS_BYTES"));
  check_full("/dev/shm", 4096, limit_of("PROBE_SHM_BYTES"));
  check_forks(limit_of("PROBE_PIDS"));
  check_memory(limit_of("PROBE_MEMORY_BYTES"));
}
