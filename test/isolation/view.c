/* What a sandbox can see: its own identity, processes, mounts, devices, kernel files, network and environment. */
#include "probe.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <mntent.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

extern char **environ;

static void check_identity(void) {
  uid_t uids[3];
  gid_t gids[3], groups[64];
  getresuid(&uids[0], &uids[1], &uids[2]);
  getresgid(&gids[0], &gids[1], &gids[2]);
  bool ok = true;
  for (int i = 0; i < 3; i++) ok = ok && uids[i] >= 10000 && gids[i] >= 10000 && uids[i] == uids[0] && gids[i] == gids[0];
  report(ok, "1.user", "%u:%u", uids[0], gids[0]);

  int count = getgroups(64, groups);
  ok = count >= 0;
  for (int i = 0; i < count; i++) ok = ok && groups[i] == gids[0];
  report(ok, "2.groups", "%d", count);
}

/* The worst of one field of /proc/PID/status over all processes. */
static void check_statuses(void) {
  int processes = 0, capable = 0, privileged = 0, unfiltered = 0;
  DIR *directory = opendir("/proc");
  for (struct dirent *entry; directory && (entry = readdir(directory));) {
    char path[300], line[256];
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    snprintf(path, sizeof path, "/proc/%s/status", entry->d_name);
    FILE *file = fopen(path, "r");
    if (!file) continue;
    int sets = 0, no_new_privs = 0, filter = 0;
    while (fgets(line, sizeof line, file)) {
      if (strncmp(line, "Cap", 3) == 0) sets += strtoull(strchr(line, ':') + 1, NULL, 16) == 0;
      if (strncmp(line, "NoNewPrivs:", 11) == 0) no_new_privs = atoi(line + 11) == 1;
      if (strncmp(line, "Seccomp:", 8) == 0) filter = atoi(line + 8) == 2;
    }
    fclose(file);
    processes++;
    capable += sets != 5;
    privileged += !no_new_privs;
    unfiltered += !filter;
  }
  if (directory) closedir(directory);
  report(processes >= 2 && capable == 0, "3.capabilities", "%d of %d processes", capable, processes);
  report(processes >= 2 && privileged == 0, "4.no_new_privs", "%d of %d processes", privileged, processes);
  report(processes >= 2 && unfiltered == 0, "5.seccomp", "%d of %d processes", unfiltered, processes);
}

static bool first_line(const char *path, char *line, int size) {
  FILE *file = fopen(path, "r");
  bool read = file && fgets(line, size, file);
  if (file) fclose(file);
  if (read) line[strcspn(line, "\n")] = 0;
  return read;
}

static void check_namespaces(void) {
  char line[1024];
  int foreign = 0;
  FILE *file = fopen("/proc/self/cgroup", "r");
  while (file && fgets(line, sizeof line, file)) foreign += strcmp(strrchr(line, ':'), ":/\n") != 0;
  if (file) fclose(file);
  report(file && foreign == 0, "7.cgroup-namespace", "%d outside", foreign);

  struct if_nameindex *interfaces = if_nameindex();
  int others = 0;
  for (struct if_nameindex *i = interfaces; i && i->if_index; i++) others += strcmp(i->if_name, "lo") != 0;
  report(interfaces && others == 0, "7.network-namespace", "%d interfaces beside lo", others);

  int segments = -1;
  file = fopen("/proc/sysvipc/shm", "r");
  while (file && fgets(line, sizeof line, file)) segments++;
  if (file) fclose(file);
  report(segments == 0, "7.ipc-namespace", "%d segments", segments);

  gethostname(line, sizeof line);
  report(strcmp(line, getenv("PROBE_HOSTNAME") ?: "") == 0, "7.uts-namespace", "%s", line);

  bool read = first_line("/proc/1/comm", line, sizeof line);
  report(read && getpid() != 1 && strcmp(line, "docker-init") == 0, "20.init", "%s", line);
}

static bool is_readonly(const char *path) {
  struct statvfs info;
  return statvfs(path, &info) == 0 && (info.f_flag & ST_RDONLY);
}

static void check_files(void) {
  int fd = open("/x", O_CREAT | O_WRONLY, 0600);
  report(fd < 0 && errno == EROFS && is_readonly("/"), "8.root", "%s", error_name(fd < 0 ? errno : 0));

  static const char *masked[] = {
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/devices/virtual/dmi", "/sys/devices/virtual/powercap", "/sys/firmware",
  };
  for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
    char check[128], byte;
    struct stat info;
    int entries = 0;
    snprintf(check, sizeof check, "9.%s", masked[i]);
    if (stat(masked[i], &info) != 0) {
      report(errno == ENOENT, check, "%s", error_name(errno));
    } else if (S_ISDIR(info.st_mode)) {
      DIR *directory = opendir(masked[i]);
      while (directory && readdir(directory)) entries++;
      if (directory) closedir(directory);
      report(directory && entries == 2, check, "%d entries", entries - 2);
    } else {
      int file = open(masked[i], O_RDONLY);
      long got = file < 0 ? -1 : read(file, &byte, 1);
      /* AppArmor refuses some of them before the mask is met */
      bool refused = file < 0 && errno == EACCES;
      report(got == 0 || refused, check, "%s", file < 0 ? error_name(errno) : got > 0 ? "has content" : "empty");
    }
  }

  static const char *knobs[] = {
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory",
    "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys/kernel/uevent_helper",
    "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/pids/cgroup.procs", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/io.max", "/sys/kernel/mm/transparent_hugepage/enabled",
  };
  for (size_t i = 0; i < sizeof knobs / sizeof *knobs; i++) {
    char check[128];
    snprintf(check, sizeof check, "10.%s", knobs[i]);
    bool absent = access(knobs[i], F_OK) != 0 && errno == ENOENT;
    int file = absent ? -1 : open(knobs[i], O_WRONLY);
    report(absent || (file < 0 && is_readonly(knobs[i])), check, "%s", absent ? "ENOENT" : is_readonly(knobs[i]) ? "EROFS" : "writable mount");
  }
}

/* Every mount that we may write to is a bounded tmpfs, or a kernel file system without storage. */
static void check_mounts(void) {
  FILE *table = setmntent("/proc/self/mounts", "r");
  char bad[1024] = "";
  int count = 0;
  for (struct mntent *m; table && (m = getmntent(table));) {
    count++;
    bool kernel = strcmp(m->mnt_type, "proc") == 0 || strcmp(m->mnt_type, "devpts") == 0 || strcmp(m->mnt_type, "mqueue") == 0;
    bool bounded = strcmp(m->mnt_type, "tmpfs") == 0 && hasmntopt(m, "size") && hasmntopt(m, "nr_inodes") &&
      hasmntopt(m, "nosuid") && hasmntopt(m, "nodev");
    struct stat info;
    bool device = stat(m->mnt_dir, &info) == 0 && (S_ISCHR(info.st_mode) || S_ISFIFO(info.st_mode));
    if (!device && !kernel && !bounded && access(m->mnt_dir, W_OK) == 0) {
      strncat(bad, m->mnt_dir, sizeof bad - strlen(bad) - 2);
      strcat(bad, " ");
    }
  }
  if (table) endmntent(table);
  report(count > 5 && !*bad, "11.mounts", "%s", *bad ? bad : "none writable and unbounded");
}

static char found[1024];

static int visit(const char *path, const struct stat *info, int type, struct FTW *position) {
  (void)position;
  if (strcmp(path, "/proc") == 0 || strcmp(path, "/sys") == 0) return FTW_SKIP_SUBTREE;
  /* the sandbox's own: its toolbox listens there */
  if (strcmp(path, "/.sandboxd/run") == 0 && info->st_uid == getuid()) return FTW_SKIP_SUBTREE;
  if (type != FTW_NS && (S_ISSOCK(info->st_mode) || S_ISBLK(info->st_mode))) {
    strncat(found, path, sizeof found - strlen(found) - 2);
    strcat(found, " ");
  }
  return FTW_CONTINUE;
}

static void check_devices(void) {
  static const char expected[] =
    " . .. core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
  char odd[1024] = "";
  DIR *directory = opendir("/dev");
  for (struct dirent *entry; directory && (entry = readdir(directory));) {
    char word[300];
    snprintf(word, sizeof word, " %s ", entry->d_name);
    if (!strstr(expected, word)) strncat(odd, word, sizeof odd - strlen(odd) - 1);
  }
  report(directory && !*odd, "14.devices", "%s", *odd ? odd : "the default ones");
  if (directory) closedir(directory);
  nftw("/", visit, 32, FTW_PHYS | FTW_ACTIONRETVAL);
  report(!*found, "14.sockets", "%s", *found ? found : "none");
}

static long try_connect(const char *address, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  inet_pton(AF_INET, address, &to.sin_addr);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  long result = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 || errno == EINPROGRESS ? 0 : errno;
  close(fd);
  return result;
}

static void check_network(void) {
  struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof own;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  bool bound = bind(listener, (struct sockaddr *)&own, length) == 0 && listen(listener, 1) == 0 &&
    getsockname(listener, (struct sockaddr *)&own, &length) == 0;
  long error = bound ? try_connect("127.0.0.1", ntohs(own.sin_port)) : errno;
  report(error == 0, "works.loopback", "%s", error_name((int)error));
  static const char *addresses[] = {"169.254.169.254", "172.17.0.1", "10.0.0.1", "192.168.0.1", "100.64.0.1", "1.1.1.1"};
  for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
    char check[64];
    snprintf(check, sizeof check, "22.%s", addresses[i]);
    error = try_connect(addresses[i], 80);
    report(error == ENETUNREACH, check, "%s", error_name((int)error));
  }
}

void check_view(void) {
  check_identity();
  check_statuses();
  check_namespaces();
  check_files();
  check_mounts();
  check_devices();
  check_network();
  char names[1024] = "";
  for (char **variable = environ; *variable; variable++) {
    strncat(names, *variable, strcspn(*variable, "=") < sizeof names - strlen(names) - 2 ? strcspn(*variable, "=") : 0);
    strcat(names, " ");
  }
  report(true, "23.environment", "%s", names);
}
