// A whole host for tests in an emulator: boots, crashes, goes back to a saved state, and is reached over ssh. What it
// knows of a running guest stands in files, so that each test file can take over the guest that another one booted.
import { spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { monitor } from "./guest-monitor.mjs";
import { must, run, startTime, until } from "./process.mjs";

/** Without hardware help the guest is about ten times slower than this machine; booting takes half a minute. */
const bootTimeoutMs = 480_000;
const commandTimeoutMs = 240_000;

const disks = ["root", "docker"];
const kernelArguments =
  "root=/dev/vda rootflags=prjquota rw console=ttyS0 psi=1 mitigations=off systemd.show_status=0";

/**
 * The guest of a folder, running or not.
 *
 * - `image`: the folder of ensureGuestImage; its disks are never written.
 * - `directory`: short, as sockets are in it. Everything of this guest is here.
 *
 * `boot` starts it on the disks it had, `create` on new ones. `save` and `rewind` keep and restore disks and memory under
 * a name. `crash` ends it at once, as a power cut does for all but what the disks had promised. `run` runs a command in
 * it as root and returns what that printed; `upload` unpacks a tar file in it. `forward` makes a unix socket of the guest reachable here, through every
 * reboot, and returns its path. `close` ends the connection; the guest goes on.
 */
export function openGuest({ image, directory }) {
  const file = (name) => path.join(directory, name);
  const forwards = new Map();

  const pid = () => (existsSync(file("pid")) ? Number(readFileSync(file("pid"), "utf8")) : undefined);
  const isUp = () => pid() !== undefined && startTime(pid()) !== undefined;

  const ssh = (...args) => [
    ...["-F", "none", "-i", path.join(image, "key"), "-p", readFileSync(file("port"), "utf8")],
    ...["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"],
    ...["-o", `ControlPath=${file("ssh")}`, "-o", "ControlMaster=auto", "-o", "ControlPersist=yes"],
    ...["-o", "ConnectTimeout=10", "-o", "StreamLocalBindUnlink=yes", "-o", "ServerAliveInterval=20"],
    ...args,
    "root@127.0.0.1",
  ];

  const command = (line, options = {}) =>
    must("ssh", [...ssh(), line], { quiet: true, timeoutMs: commandTimeoutMs, ...options });

  /** The connection dies with the guest's memory; nothing is left of it here. */
  async function disconnect() {
    if (!existsSync(file("ssh"))) return;
    await run("ssh", ssh("-O", "exit"), { quiet: true, timeoutMs: 10_000 });
    rmSync(file("ssh"), { force: true });
  }

  async function connect() {
    await disconnect();
    const answers = async () => {
      if (!isUp()) throw new Error(`the emulator ended: ${readFileSync(file("emulator.log"), "utf8")}`);
      const { status } = await run("ssh", [...ssh(), "true"], { quiet: true, timeoutMs: 20_000 });
      return status === 0 ? true : undefined;
    };
    const what = `no answer from the guest (see ${file("console.log")})`;
    await until(answers, { timeoutMs: bootTimeoutMs, what, everyMs: 500 });
    // A guest that was saved lives in the past.
    await command(`date -s @${Date.now() / 1000}`);
    for (const [remote, local] of forwards) await openForward(remote, local);
  }

  const openForward = (remote, local) =>
    must("ssh", ssh("-O", "forward", "-L", `${local}:${remote}`), { quiet: true, timeoutMs: 20_000 });

  async function boot() {
    if (isUp()) throw new Error(`the guest of ${directory} runs already`);
    rmSync(file("ssh"), { force: true });
    const port = await freePort();
    const output = openSync(file("emulator.log"), "w");
    const [program, ...args] = [...emulator(image), ...machine(image, directory, port)];
    const child = spawn(program, args, { stdio: ["ignore", output, output], detached: true });
    closeSync(output);
    child.unref();
    writeFileSync(file("port"), String(port));
    writeFileSync(file("pid"), String(child.pid));
    await connect();
    const state = await run("ssh", [...ssh(), "systemctl is-system-running --wait"], {
      quiet: true,
      timeoutMs: bootTimeoutMs,
    });
    if (state.output.trim() === "running") return;
    throw new Error(
      `the guest is ${state.output.trim()}:\n${await command("systemctl --failed --no-legend")}`,
    );
  }

  async function crash() {
    if (isUp()) process.kill(pid(), "SIGKILL");
    await until(() => (isUp() ? undefined : true), { timeoutMs: 20_000, what: "the emulator did not end" });
    await disconnect();
  }

  return {
    isUp,
    boot,
    crash,
    run: command,
    close: disconnect,
    async create() {
      await crash();
      mkdirSync(directory, { recursive: true });
      for (const disk of disks) {
        const base = path.join(image, `${disk}.img`);
        const [program, ...args] = tool(image, "qemu-img");
        const create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, file(`${disk}.qcow2`)];
        await must(program, [...args, ...create], { quiet: true });
      }
      await boot();
    },
    async reboot() {
      // It does not answer any more once it shuts down, so how the command ends says nothing.
      await run("ssh", [...ssh(), "reboot"], { quiet: true, timeoutMs: 20_000 });
      const ended = () => (isUp() ? undefined : true);
      await until(ended, { timeoutMs: bootTimeoutMs, what: "the guest did not shut down" });
      await disconnect();
      await boot();
    },
    async save(tag) {
      await command("sync; echo 3 >/proc/sys/vm/drop_caches");
      await disconnect();
      await monitor(file("monitor"), `savevm ${tag}`);
      await connect();
    },
    async rewind(tag) {
      if (!isUp()) await boot();
      await disconnect();
      await monitor(file("monitor"), `loadvm ${tag}`);
      await connect();
    },
    async upload(archive, to) {
      const input = openSync(archive, "r");
      try {
        await command(`mkdir -p ${to} && tar -x -C ${to}`, { stdio: [input, "pipe", "pipe"] });
      } finally {
        closeSync(input);
      }
    },
    async forward(remote) {
      const local = file(path.basename(remote));
      if (!forwards.has(remote)) await openForward(remote, local);
      forwards.set(remote, local);
      return local;
    },
  };
}

/** A program of the emulator's package tree, run by that tree's own loader: this machine's libraries may be older. */
function tool(image, name) {
  const tree = path.join(image, "emulator");
  const libraries = path.join(tree, "usr/lib/x86_64-linux-gnu");
  return [
    path.join(tree, "lib64/ld-linux-x86-64.so.2"),
    "--library-path",
    libraries,
    path.join(tree, "usr/bin", name),
  ];
}

function emulator(image) {
  const share = path.join(image, "emulator/usr/share");
  const firmware = ["qemu", "seabios"].flatMap((name) => ["-L", path.join(share, name)]);
  return [...tool(image, "qemu-system-x86_64"), ...firmware];
}

/** Two processors, 2 GiB, two disks, and a network that leads nowhere but from `port` here to its ssh. */
function machine(image, directory, port) {
  const drives = disks.flatMap((disk) => {
    const file = path.join(directory, `${disk}.qcow2`);
    return ["-drive", `file=${file},if=virtio,format=qcow2,cache=writeback,discard=unmap`];
  });
  const network = `user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:22`;
  return [
    ...["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "qemu64", "-machine", "q35"],
    ...["-m", "2048", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"],
    ...["-kernel", path.join(image, "vmlinuz"), "-initrd", path.join(image, "initrd")],
    ...["-append", kernelArguments, ...drives, "-nic", network, "-device", "virtio-rng-pci"],
    ...["-serial", `file:${path.join(directory, "console.log")}`],
    ...["-qmp", `unix:${path.join(directory, "monitor")},server=on,wait=off`],
  ];
}

/** A port of loopback that is free now. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
