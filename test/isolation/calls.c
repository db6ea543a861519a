/* The calls that a sandbox must not make, each with arguments that do no harm where they are let through, and the
 * calls on which ordinary programs depend. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif
#define SYS_file_setattr_ 469
#define HIGH_BIT (1L << 32) /* the kernel drops it from an int, a careless filter doesn't */

struct call {
  const char *check;
  long number;
  long arguments[6];
};

static struct io_uring_params ring;
static long zeros[64];
#define BAD 1L /* no address */
#define NOWHERE ((long)"/nonexistent/nowhere")

static const struct call forbidden[] = {
  {"15.io_uring_setup", SYS_io_uring_setup, {1, (long)&ring}},
  {"15.io_uring_enter", SYS_io_uring_enter, {-1}},
  {"15.io_uring_register", SYS_io_uring_register, {-1}},
  {"15.userfaultfd", SYS_userfaultfd, {0}},
  {"15.bpf", SYS_bpf, {-1, (long)zeros, sizeof zeros}},
  {"15.perf_event_open", SYS_perf_event_open, {BAD, 0, -1, -1, 0}},
  {"15.keyctl", SYS_keyctl, {0, -3, 0}},
  {"15.add_key", SYS_add_key, {BAD, BAD, 0, 0, -3}},
  {"15.request_key", SYS_request_key, {BAD, BAD, 0, 0}},
  {"15.unshare-user", SYS_unshare, {CLONE_NEWUSER}},
  {"15.unshare-mount", SYS_unshare, {CLONE_NEWNS}},
  {"15.unshare-net", SYS_unshare, {CLONE_NEWNET}},
  {"15.unshare-time", SYS_unshare, {0x80}},
  {"15.setns", SYS_setns, {-1, 0}},
  {"15.mount", SYS_mount, {0, NOWHERE, 0, 0, 0}},
  {"15.umount2", SYS_umount2, {NOWHERE, 0}},
  {"15.pivot_root", SYS_pivot_root, {NOWHERE, NOWHERE}},
  {"15.chroot", SYS_chroot, {NOWHERE}},
  {"15.fsopen", SYS_fsopen, {(long)"tmpfs", 0}},
  {"15.fsconfig", SYS_fsconfig, {-1, 0, 0, 0, 0}},
  {"15.fsmount", SYS_fsmount, {-1, 0, 0}},
  {"15.fspick", SYS_fspick, {AT_FDCWD, NOWHERE, 0}},
  {"15.open_tree", SYS_open_tree, {AT_FDCWD, (long)"/", 0}},
  {"15.move_mount", SYS_move_mount, {AT_FDCWD, NOWHERE, AT_FDCWD, NOWHERE, 0}},
  {"15.mount_setattr", SYS_mount_setattr, {AT_FDCWD, NOWHERE, 0, (long)zeros, 32}},
  {"15.init_module", SYS_init_module, {0, 0, BAD}},
  {"15.finit_module", SYS_finit_module, {-1, BAD, 0}},
  {"15.delete_module", SYS_delete_module, {BAD, 0}},
  {"15.kexec_load", SYS_kexec_load, {0, 0, 0, -1}},
  {"15.kexec_file_load", SYS_kexec_file_load, {-1, -1, 0, 0, -1}},
  {"15.reboot", SYS_reboot, {0, 0, 0, 0}},
  {"15.swapon", SYS_swapon, {NOWHERE, -1}},
  {"15.swapoff", SYS_swapoff, {NOWHERE}},
  {"15.settimeofday", SYS_settimeofday, {BAD, 0}},
  {"15.clock_settime", SYS_clock_settime, {12345, BAD}},
  {"15.acct", SYS_acct, {NOWHERE}},
  {"15.syslog", SYS_syslog, {99, 0, 0}},
  {"15.quotactl", SYS_quotactl, {-1, 0, 0, 0}},
  {"15.quotactl_fd", SYS_quotactl_fd, {-1, -1, 0, 0}},
  {"15.sethostname", SYS_sethostname, {BAD, 4}},
  {"15.setdomainname", SYS_setdomainname, {BAD, 4}},
  {"15.open_by_handle_at", SYS_open_by_handle_at, {-1, (long)zeros, 0}},
  {"15.fanotify_init", SYS_fanotify_init, {0x200, 0}},
  {"15.pidfd_getfd", SYS_pidfd_getfd, {-1, 0, 0}},
  {"15.io_setup", SYS_io_setup, {1, (long)zeros}},
  {"15.sync", SYS_sync, {0}},
  {"15.mbind", SYS_mbind, {0, 0, 99, 0, 0, 0}},
  {"15.personality-uname26", SYS_personality, {0x20000}},
  {"15.mknod-block", SYS_mknodat, {-1, (long)"x", S_IFBLK | 0600, 0}},
  {"15.mknod-char", SYS_mknodat, {-1, (long)"x", S_IFCHR | 0600, 0}},
  {"15.clone3", SYS_clone3, {BAD, 0}},
  {"17.file_setattr", SYS_file_setattr_, {AT_FDCWD, NOWHERE, (long)zeros, 24, 0}},
#ifdef __x86_64__
  {"15.iopl", SYS_iopl, {0}},
  {"15.ioperm", SYS_ioperm, {0, 1, 0}},
  {"15.modify_ldt", SYS_modify_ldt, {0, (long)zeros, 8}},
  {"18.x32", 0x40000000 + SYS_getpid, {0}},
#endif
};

static const struct call forbidden_sockets[] = {
  {"16.packet-raw", SYS_socket, {17, 3, 0}},
  {"16.packet-dgram", SYS_socket, {17, 2, 0}},
  {"16.packet-high-bits", SYS_socket, {17 | HIGH_BIT, 3 | HIGH_BIT, 0}},
  {"16.inet-raw", SYS_socket, {2, 3, 1}},
  {"16.inet-raw-high-bits", SYS_socket, {2 | HIGH_BIT, 3 | HIGH_BIT, 1 | HIGH_BIT}},
  {"16.inet-raw-cloexec", SYS_socket, {2, 3 | SOCK_CLOEXEC, 6}},
  {"16.inet6-raw", SYS_socket, {10, 3, 58}},
  {"16.inet-packet-type", SYS_socket, {2, 10, 0x0300}},
  {"16.inet-sctp", SYS_socket, {2, 1, 132}},
  {"16.inet-mptcp", SYS_socket, {2, 1, 262}},
  {"16.vsock", SYS_socket, {40, 1, 0}},
  {"16.alg", SYS_socket, {38, 5, 0}},
  {"16.xdp", SYS_socket, {44, 3, 0}},
  {"16.key", SYS_socket, {15, 3, 2}},
  {"16.bluetooth", SYS_socket, {31, 3, 1}},
  {"16.can", SYS_socket, {29, 3, 1}},
  {"16.tipc", SYS_socket, {30, 2, 0}},
  {"16.netlink-uevent", SYS_socket, {16, 3, 15}},
  {"16.netlink-audit", SYS_socket, {16, 3, 9}},
  {"16.netlink-netfilter", SYS_socket, {16, 3, 12}},
  {"16.netlink-generic", SYS_socket, {16, 3, 16}},
  {"16.socketpair-tipc", SYS_socketpair, {30, 1, 0, (long)zeros}},
};

static long run_call(const void *argument) {
  const struct call *c = argument;
  const long *a = c->arguments;
  return syscall(c->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}




static long run_clone(const void *argument) {
  long child = syscall(SYS_clone, *(const long *)argument | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) _exit(0);
  int error = errno;
  if (child > 0) waitpid((pid_t)child, NULL, 0);
  errno = error;
  return child;
}

static void check_clone(void) {
  static const struct { const char *check; long flags; } rows[] = {
    {"15.clone-newns", CLONE_NEWNS},     {"15.clone-newuser", CLONE_NEWUSER},
    {"15.clone-newpid", CLONE_NEWPID},   {"15.clone-newnet", CLONE_NEWNET},
    {"15.clone-newipc", CLONE_NEWIPC},   {"15.clone-newuts", CLONE_NEWUTS},
    {"15.clone-newcgroup", CLONE_NEWCGROUP}, {"15.clone-high-bits", CLONE_NEWUSER | HIGH_BIT},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    report_refusal(rows[i].check, attempt(run_clone, &rows[i].flags));
  }
}

static long run_ioctl(const void *argument) {
  char path[] = "/tmp/probe-XXXXXX";
  int fd = mkstemp(path);
  unlink(path);
  errno = 0;
  return syscall(SYS_ioctl, fd, *(const long *)argument, zeros);
}

static void check_ioctls(void) {
  static const struct { const char *name; long command; } rows[] = {
    {"FS_IOC_SETFLAGS", 0x40086602},  {"FS_IOC32_SETFLAGS", 0x40046602}, {"FS_IOC_FSSETXATTR", 0x401c5820},
    {"TIOCSTI", 0x5412},              {"TIOCLINUX", 0x541c},             {"TIOCCONS", 0x541d},
    {"TIOCSETD", 0x5423},             {"BTRFS_SUBVOL_CREATE", 0x5000940e}, {"BTRFS_SNAP_CREATE_V2", 0x50009417},
    {"BTRFS_SNAP_CREATE", 0x50009401}, {"BTRFS_SUBVOL_CREATE_V2", 0x50009418}, {"BTRFS_SUBVOL_SETFLAGS", 0x4008941a},
    {"SIOCSIFADDR-bridge", 0x89a0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const long variants[] = {rows[i].command, rows[i].command | HIGH_BIT, rows[i].command | (1L << 63)};
    const char *suffixes[] = {"", "-high-bit", "-top-bit"};
    for (int v = 0; v < 3; v++) {
      char check[64];
      snprintf(check, sizeof check, "17.%s%s", rows[i].name, suffixes[v]);
      report_refusal(check, attempt(run_ioctl, &variants[v]));
    }
  }
}

#ifdef __x86_64__
static long run_int80(const void *argument) {
  (void)argument;
  long result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
  int narrow = (int)result;
  if (narrow >= 0) return narrow;
  errno = -narrow;
  return -1;
}
#endif

static void *run_thread(void *argument) { return argument; }

static long works_thread(const void *argument) {
  (void)argument;
  pthread_t thread;
  errno = pthread_create(&thread, NULL, run_thread, NULL);
  return errno ? -1 : pthread_join(thread, NULL);
}

static long works_trace(const void *argument) {
  (void)argument;
  pid_t child = fork();
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    _exit(7);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return -1;
  if (ptrace(PTRACE_CONT, child, 0, 0) != 0) return -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 0 : -1;
}

static long works_terminal(const void *argument) {
  (void)argument;
  struct termios settings;
  struct winsize size;
  int leader = posix_openpt(O_RDWR | O_NOCTTY);
  if (leader < 0 || grantpt(leader) != 0 || unlockpt(leader) != 0) return -1;
  int follower = open(ptsname(leader), O_RDWR | O_NOCTTY);
  if (follower < 0 || tcgetattr(follower, &settings) != 0) return -1;
  if (tcsetattr(follower, TCSANOW, &settings) != 0) return -1;
  if (setsid() < 0 || ioctl(follower, TIOCSCTTY, 0) != 0) return -1;
  return ioctl(leader, TIOCGWINSZ, &size);
}

static long works_fifo(const void *argument) {
  (void)argument;
  if (mkfifo("/tmp/probe.fifo", 0600) != 0) return -1;
  return unlink("/tmp/probe.fifo");
}

static long works_not_a_tty(const void *argument) {
  (void)argument;
  int fd = open("/dev/null", O_RDONLY);
  return isatty(fd) == 0 && errno == ENOTTY ? 0 : -1;
}

static long works_pending(const void *argument) {
  (void)argument;
  int ends[2], count = 0;
  if (pipe(ends) != 0 || write(ends[1], "abc", 3) != 3 || ioctl(ends[0], FIONREAD, &count) != 0) return -1;
  return count == 3 ? 0 : -1;
}

static void check_works(void) {
  static const struct { const char *check; long (*call)(const void *); } functions[] = {
    {"works.thread", works_thread}, {"works.ptrace", works_trace}, {"works.terminal", works_terminal},
    {"works.fifo", works_fifo}, {"works.isatty", works_not_a_tty}, {"works.fionread", works_pending},
  };
  static const struct call calls[] = {
    {"works.socket-unix", SYS_socket, {1, 1 | SOCK_CLOEXEC, 0}},
    {"works.socket-tcp", SYS_socket, {2, 1 | SOCK_NONBLOCK, 6}},
    {"works.socket-udp", SYS_socket, {2, 2, 17}},
    {"works.socket-tcp6", SYS_socket, {10, 1, 0}},
    {"works.socket-udp6", SYS_socket, {10, 2, 0}},
    {"works.socket-route", SYS_socket, {16, 3 | SOCK_CLOEXEC, 0}},
    {"works.socketpair", SYS_socketpair, {1, 1, 0, (long)zeros}},
    {"works.memfd", SYS_memfd_create, {(long)"x", 0}},
    {"works.inotify", SYS_inotify_init1, {0}},
    {"works.epoll", SYS_epoll_create1, {0}},
    {"works.eventfd", SYS_eventfd2, {0, 0}},
    {"works.personality-ask", SYS_personality, {0xffffffff}},
    {"works.personality-no-aslr", SYS_personality, {0x40000}},
    {"works.getrandom", SYS_getrandom, {(long)zeros, 8, 0}},
    {"works.umask", SYS_umask, {022}},
  };
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
    struct outcome o = attempt(functions[i].call, NULL);
    report(o.value >= 0 && o.signal == 0, functions[i].check, "%s", error_name(o.value < 0 ? o.error : 0));
  }
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
    struct outcome o = attempt(run_call, &calls[i]);
    report(o.value >= 0 && o.signal == 0, calls[i].check, "%s", error_name(o.value < 0 ? o.error : 0));
  }
}

void check_calls(void) {
  for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
    report_refusal(forbidden[i].check, attempt(run_call, &forbidden[i]));
  }
  for (size_t i = 0; i < sizeof forbidden_sockets / sizeof *forbidden_sockets; i++) {
    report_refusal(forbidden_sockets[i].check, attempt(run_call, &forbidden_sockets[i]));
  }
  check_clone();
  check_ioctls();
#ifdef __x86_64__
  report_refusal("18.int80", attempt(run_int80, NULL));
#endif
  check_works();
}
