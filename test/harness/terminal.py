# Runs a program on a pseudo terminal of its own, for tests: lines of JSON on standard input say what to type and how large it is, what
# the program writes goes to standard output, and when it has ended a line on standard error says how, and how it left the terminal.
import fcntl, json, os, pty, select, signal, struct, sys, termios

rows, columns = int(sys.argv[1]), int(sys.argv[2])
master, slave = pty.openpty()


def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


resize(rows, columns)
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.closerange(3, 256)
    os.execvp(sys.argv[3], sys.argv[3:])

commands = b""
source = 0
while True:
    ready, _, _ = select.select([master] + ([source] if source is not None else []), [], [], 0.05)
    if master in ready:
        os.write(1, os.read(master, 65536))
        continue
    if source in ready:
        data = os.read(source, 65536)
        commands += data
        if not data:
            source = None
        while b"\n" in commands:
            line, commands = commands.split(b"\n", 1)
            command = json.loads(line)
            if "type" in command:
                os.write(master, command["type"].encode())
            if "size" in command:
                resize(*command["size"])
            if "signal" in command:
                os.kill(pid, command["signal"])
        continue
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended != 0:
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        sys.stderr.write(json.dumps({"code": code, "restored": termios.tcgetattr(slave) == before}) + "\n")
        break
