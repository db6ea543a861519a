/* Runs inside a sandbox as its user and tries what a hostile program would. One line of JSON for each check:
 * {"check":"15.bpf","ok":true,"detail":"EPERM"}. With --control, run unconfined as root, it tells which of the calls
 * this kernel would let through, so that a call that the kernel lacks is not taken for one that the sandbox refused. With
 * --facts it tries nothing, and prints what the kernel says of it. */
#include "probe.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

bool is_control = false;

void report(bool ok, const char *check, const char *detail, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, detail);
  vsnprintf(text, sizeof text, detail, arguments);
  va_end(arguments);
  for (char *c = text; *c; c++) {
    if (*c == '"' || *c == '\\' || (unsigned char)*c < ' ') *c = ' ';
  }
  printf("{\"check\":\"%s\",\"ok\":%s,\"detail\":\"%s\"}\n", check, ok ? "true" : "false", text);
  fflush(stdout);
}

struct outcome attempt(long (*call)(const void *), const void *argument) {
  struct outcome *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  shared->value = -1;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    errno = 0;
    shared->value = call(argument);
    shared->error = errno;
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  struct outcome outcome = *shared;
  outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  munmap(shared, 4096);
  return outcome;
}

const char *error_name(int error) {
  const char *name = error == 0 ? "success" : strerrorname_np(error);
  return name ? name : "unknown";
}

void report_refusal(const char *check, struct outcome outcome) {
  bool denied = outcome.value == -1 && (outcome.error == EPERM || outcome.error == ENOSYS);
  if (outcome.signal != 0) {
    report(!is_control, check, "%s", strsignal(outcome.signal));
  } else {
    report(denied != is_control, check, "%s", error_name(outcome.value == -1 ? outcome.error : 0));
  }
}

int main(int count, char **arguments) {
  if (count > 1 && strcmp(arguments[1], "--facts") == 0) {
    print_facts();
    return 0;
  }
  is_control = count > 1 && strcmp(arguments[1], "--control") == 0;
  if (count > 1 && strcmp(arguments[1], "--wait") == 0) {
    /* whoever reads our limits from outside says when; nobody there is no reason to wait for ever */
    const struct timespec patience = {.tv_sec = 60};
    sigset_t go;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR1);
    sigprocmask(SIG_BLOCK, &go, NULL);
    sigtimedwait(&go, NULL, &patience);
  }
  check_calls();
  if (!is_control) {
    check_view();
    check_bounds();
  }
  return 0;
}
