// Terminals: a pair, of which the process has one side as its controlling terminal, and the keeper the other.

#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

// Time in which a program takes note of the first size: signals of one kind that are not taken yet are one.
#define REPAINT_NS 100000000

static int set_size(int terminal, uint16_t rows, uint16_t columns) {
  struct winsize size = {.ws_row = rows, .ws_col = columns};
  return ioctl(terminal, TIOCSWINSZ, &size) == 0 ? 0 : errno;
}

int open_terminal(int *slave, uint16_t rows, uint16_t columns) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (master < 0) return -1;
  int locked = 0;
  struct termios modes;
  *slave = ioctl(master, TIOCSPTLCK, &locked) == 0 ? ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC) : -1;
  if (*slave >= 0 && tcgetattr(*slave, &modes) == 0) {
    // erasing takes a whole character away
    modes.c_iflag |= IUTF8;
    if (tcsetattr(*slave, TCSANOW, &modes) == 0 && set_size(*slave, rows, columns) == 0) return master;
  }
  int error = errno;
  if (*slave >= 0) close(*slave);
  close(master);
  errno = error;
  return -1;
}

void finish_repaint(struct keeper *keeper) {
  keeper->repaint_at = 0;
  if (keeper->terminal >= 0) set_size(keeper->terminal, keeper->rows, keeper->columns);
}

int resize_terminal(struct keeper *keeper, uint16_t rows, uint16_t columns, bool repaint) {
  if (keeper->has_ended) return ESRCH;
  if (keeper->terminal < 0) return ENOTTY;
  if (rows == 0 || columns == 0) return EINVAL;
  keeper->rows = rows;
  keeper->columns = columns;
  keeper->repaint_at = 0;
  if (!repaint) return set_size(keeper->terminal, rows, columns);
  keeper->repaint_at = after(REPAINT_NS);
  return set_size(keeper->terminal, rows > 1 ? rows - 1 : 2, columns);
}
