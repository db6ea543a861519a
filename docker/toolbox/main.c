// The toolbox: works inside of a sandbox for the daemon outside. One static program, so that it runs in any image.

#include "toolbox.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) return serve(argv[2]);
  fprintf(stderr, "usage: toolbox serve SOCKET\n");
  return 2;
}
