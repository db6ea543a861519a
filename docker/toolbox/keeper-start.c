// The start of a process: its place beside the server's socket, its pipes or terminal, its environment, the exec.

#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_WORDS 1024
#define MOST_VARIABLES 4096
#define LEAST_RETAINED 4096
#define MOST_RETAINED 16777216
// Frames are small beside what is retained, since it is by frames that the oldest is dropped.
#define FRAMES_RETAINED 8
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

enum flags { HAS_INPUT = 1, HAS_TERMINAL = 2 };

struct request {
  char *id;
  char **argv;
  char **env;
  char *directory;
  uint8_t flags;
  uint16_t rows;
  uint16_t columns;
};

// What the child becomes, and where it says why it could not.
struct plan {
  char **argv;
  char **env;
  int directory;
  int standard[3];
  bool has_terminal;
  int report;
};

struct refusal {
  int error;
  const char *operation;
  const char *path;
};

static uint64_t read_ms(uint64_t ms) { return ms > UINT64_MAX / 1000000 ? UINT64_MAX : ms * 1000000; }

static bool read_request(struct keeper *keeper, struct request *request, struct reader *reader) {
  request->id = read_str(reader);
  request->argv = read_list(reader, MOST_WORDS);
  request->env = read_list(reader, MOST_VARIABLES);
  request->directory = read_str(reader);
  request->flags = read_u8(reader);
  request->rows = read_u16(reader);
  request->columns = read_u16(reader);
  keeper->timeout_ns = read_ms(read_u64(reader));
  keeper->grace_ns = read_ms(read_u32(reader));
  keeper->orphan_ns = read_ms(read_u64(reader));
  keeper->retain_bytes = read_u32(reader);
  keeper->wait_ns = read_ms(read_u32(reader));
  if (reader->bad || request->argv[0] == NULL) return false;
  if (keeper->retain_bytes < LEAST_RETAINED) keeper->retain_bytes = LEAST_RETAINED;
  if (keeper->retain_bytes > MOST_RETAINED) keeper->retain_bytes = MOST_RETAINED;
  keeper->frame_bytes = keeper->retain_bytes / FRAMES_RETAINED;
  if (keeper->frame_bytes > MOST_OUTPUT) keeper->frame_bytes = MOST_OUTPUT;
  keeper->rows = request->rows == 0 ? 24 : request->rows;
  keeper->columns = request->columns == 0 ? 80 : request->columns;
  return true;
}

static void wipe_list(char **list) {
  for (char **at = list; *at != NULL; at++) {
    explicit_bzero(*at, strlen(*at));
    free(*at);
  }
  free(list);
}

static void wipe_request(struct request *request) {
  wipe_list(request->argv);
  wipe_list(request->env);
  free(request->id);
  free(request->directory);
}

static bool is_same_variable(const char *one, const char *other) {
  size_t length = strcspn(one, "=");
  return strncmp(one, other, length) == 0 && (other[length] == '=' || other[length] == 0);
}

static void set_variable(char **env, size_t *count, char *variable) {
  for (size_t i = 0; i < *count; i++) {
    if (!is_same_variable(variable, env[i])) continue;
    env[i] = variable;
    return;
  }
  env[(*count)++] = variable;
}

static size_t count_list(char **list) {
  size_t count = 0;
  while (list[count] != NULL) count++;
  return count;
}

// The request's over the server's. The list is new, its words are theirs.
static char **make_environment(const struct request *request) {
  static char terminal_type[] = "TERM=xterm-256color";
  char **env = allocate((count_list(environ) + count_list(request->env) + 2) * sizeof *env);
  size_t count = 0;
  if (request->flags & HAS_TERMINAL) env[count++] = terminal_type;
  for (char **at = environ; *at != NULL; at++) set_variable(env, &count, *at);
  for (char **at = request->env; *at != NULL; at++) set_variable(env, &count, *at);
  env[count] = NULL;
  return env;
}

// Not below /proc or /sys, where a path may lead out of the sandbox.
static int open_directory(const char *path) {
  int directory = open(*path == 0 ? "." : path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct statfs status;
  if (directory < 0) return -1;
  if (fstatfs(directory, &status) == 0) {
    switch ((unsigned long)status.f_type) {
      case PROC_SUPER_MAGIC:
      case SYSFS_MAGIC:
      case CGROUP_SUPER_MAGIC:
      case CGROUP2_SUPER_MAGIC:
        errno = EACCES;
        break;
      default:
        return directory;
    }
  }
  int error = errno;
  close(directory);
  errno = error;
  return -1;
}

// One pipe: what the keeper has of it does not block.
static bool open_pipe(int *keepers, int *childs, bool keeper_reads) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  *keepers = ends[keeper_reads ? 0 : 1];
  *childs = ends[keeper_reads ? 1 : 0];
  return fcntl(*keepers, F_SETFL, O_NONBLOCK) == 0;
}

static bool open_pipes(struct keeper *keeper, const struct request *request, struct plan *plan) {
  keeper->sources[0].stream = STDOUT;
  keeper->sources[1].stream = STDERR;
  if (request->flags & HAS_INPUT) {
    if (!open_pipe(&keeper->input, &plan->standard[0], false)) return false;
  } else {
    plan->standard[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (plan->standard[0] < 0) return false;
  }
  return open_pipe(&keeper->sources[0].fd, &plan->standard[1], true) && open_pipe(&keeper->sources[1].fd, &plan->standard[2], true);
}

static bool open_terminals(struct keeper *keeper, struct plan *plan) {
  keeper->terminal = open_terminal(&keeper->terminal_slave, keeper->rows, keeper->columns);
  if (keeper->terminal < 0) return false;
  keeper->sources[0] = (struct source){.fd = keeper->terminal, .stream = TERMINAL};
  keeper->input = keeper->terminal;
  // the keeper's own stays open as long as the process runs: without one the output would end whenever nobody has the terminal open
  for (size_t i = 0; i < 3; i++) plan->standard[i] = keeper->terminal_slave;
  plan->has_terminal = true;
  return true;
}

static const char *path_of(char **env) {
  for (; *env != NULL; env++) {
    if (strncmp(*env, "PATH=", 5) == 0) return *env + 5;
  }
  return DEFAULT_PATH;
}

// As execvpe, but by the PATH of the new environment, and without giving what is no program to a shell. Returns why it failed.
static int execute(char **argv, char **env) {
  const char *name = argv[0];
  if (*name == 0) return ENOENT;
  if (strchr(name, '/') != NULL) {
    execve(name, argv, env);
    return errno;
  }
  int error = ENOENT;
  const char *path = path_of(env);
  for (;;) {
    size_t length = strcspn(path, ":");
    char *file = allocate(length + strlen(name) + 3);
    memcpy(file, path, length);
    // an empty one is the current directory
    strcpy(file + length, length == 0 ? "./" : "/");
    strcat(file, name);
    execve(file, argv, env);
    free(file);
    // one that may not be executed is told if no other is found
    if (errno == EACCES) error = EACCES;
    else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG) return errno;
    if (path[length] == 0) return error;
    path += length + 1;
  }
}

static _Noreturn void report(const struct plan *plan, int error, const char *operation) {
  struct refusal refusal = {.error = error, .operation = operation};
  // the address of a literal is the same in the parent
  ssize_t count = write(plan->report, &refusal, sizeof refusal);
  _exit(count == sizeof refusal ? 127 : 126);
}

static void reset_signals(void) {
  sigset_t none;
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void become(const struct plan *plan) {
  setsid();
  for (int i = 0; i < 3; i++) {
    if (dup2(plan->standard[i], i) < 0) report(plan, errno, "pipe");
  }
  if (plan->has_terminal && ioctl(0, TIOCSCTTY, 0) != 0) report(plan, errno, "terminal");
  if (fchdir(plan->directory) != 0) report(plan, errno, "directory");
  // all are opened to be closed by now; this is for what the server was given
  close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  reset_signals();
  report(plan, execute(plan->argv, plan->env), "exec");
}

static bool run(struct keeper *keeper, struct plan *plan, struct refusal *refusal) {
  int reports[2];
  if (pipe2(reports, O_CLOEXEC) != 0) {
    *refusal = (struct refusal){errno, "pipe", ""};
    return false;
  }
  plan->report = reports[1];
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  keeper->started_ns = (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
  keeper->started = now();
  keeper->pid = fork();
  if (keeper->pid == 0) become(plan);
  int error = errno;
  close(reports[1]);
  ssize_t count = 0;
  if (keeper->pid < 0) *refusal = (struct refusal){error, "fork", ""};
  else while ((count = read(reports[0], refusal, sizeof *refusal)) < 0 && errno == EINTR) continue;
  close(reports[0]);
  if (keeper->pid > 0 && count != sizeof *refusal) return true;
  if (keeper->pid > 0) waitpid(keeper->pid, NULL, 0);
  return false;
}

static void close_plan(const struct keeper *keeper, const struct plan *plan) {
  if (plan->directory >= 0) close(plan->directory);
  for (size_t i = 0; i < 3; i++) {
    if (plan->standard[i] >= 0 && plan->standard[i] != keeper->terminal_slave) close(plan->standard[i]);
  }
}

static bool start(struct keeper *keeper, const struct request *request, struct refusal *refusal) {
  struct plan plan = {.argv = request->argv, .directory = -1, .standard = {-1, -1, -1}};
  bool has_terminal = (request->flags & HAS_TERMINAL) != 0;
  bool started = false;
  plan.directory = open_directory(request->directory);
  if (plan.directory < 0) {
    *refusal = (struct refusal){errno, "directory", request->directory};
  } else if (!(has_terminal ? open_terminals(keeper, &plan) : open_pipes(keeper, request, &plan))) {
    *refusal = (struct refusal){errno, has_terminal ? "terminal" : "pipe", ""};
  } else {
    plan.env = make_environment(request);
    started = run(keeper, &plan, refusal);
    if (!started && strcmp(refusal->operation, "fork") != 0) refusal->path = strcmp(refusal->operation, "directory") == 0 ? request->directory : request->argv[0];
    free(plan.env);
  }
  close_plan(keeper, &plan);
  return started;
}

bool start_process(struct keeper *keeper, const char *directory, int connection, struct reader *reader) {
  struct request request;
  struct refusal refusal = {0};
  const uint8_t *bytes = reader->at;
  bool started = false;
  if (!read_request(keeper, &request, reader) || !keeper_path(keeper->path, sizeof keeper->path, directory, request.id)) {
    refusal = (struct refusal){EPROTO, "request", ""};
  } else {
    int error = take_place(directory, keeper->path, &keeper->listener);
    if (error != 0) refusal = (struct refusal){error, "id", request.id};
    else started = start(keeper, &request, &refusal);
    if (error == 0 && !started) unlink(keeper->path);
  }
  if (!started) send_error(connection, refusal.error, refusal.operation, refusal.path);
  // what was given to the process is the process's
  explicit_bzero((void *)bytes, (size_t)(reader->end - bytes));
  wipe_request(&request);
  return started;
}
