// The disks of a whole host for tests, and the emulator that runs it: Debian 13 with systemd, cgroup v2 and Docker, made of
// packages from the mirror that apt uses. Kept in .dev/guest until this recipe changes.
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { freemem } from "node:os";
import path from "node:path";
import { installPackages } from "./packages.mjs";
import { Advice, must, root, run } from "./process.mjs";

/** What the guest cannot be made of, because the mirror does not have it: nobody on this machine can change that. */
export class Unobtainable extends Advice {}

const suite = "trixie";
const home = path.join(root, ".dev/guest");
const setupScript = path.join(root, "tools/lib/guest-setup.sh");

/** What this machine builds and boots the guest with. */
const tools = ["mmdebstrap", "xfsprogs", "e2fsprogs", "openssh-client", "util-linux"];

/** The emulator comes from the guest's release: that of Debian 12 (QEMU 7.2) computes flags wrongly, and the guest panics. */
const emulatorPackages = ["qemu-system-x86", "qemu-utils"];

const guestPackages = [
  ...["linux-image-cloud-amd64", "zstd", "systemd-sysv", "dbus", "udev", "openssh-server"],
  ...[
    "docker.io",
    "docker-cli",
    "apparmor",
    "iptables",
    "nftables",
    "iproute2",
    "xfsprogs",
    "quota",
    "procps",
  ],
  // Of which the pinned Node is made.
  ...["libatomic1", "libstdc++6"],
];

/** The guest finds its disks with these modules. */
const bootModules = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "xfs", "quota_v2"];

/** In the words of apt: the mirror does not have it. */
const isAbsent = /Unable to locate package|no installation candidate|does not have a Release file|404/;

const gibibyte = 1024 ** 3;
const neededDisk = 5 * gibibyte;
const neededMemory = 3 * gibibyte;

/** Seconds, on a slow mirror. */
const buildTimeoutMs = 900_000;

const slim = [
  ...["--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io"],
  ...["man", "doc", "locale"].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`),
];

/** Names the recipe: this file and the script. */
function recipeHash() {
  const hash = createHash("sha256");
  for (const file of [new URL(import.meta.url).pathname, setupScript]) hash.update(readFileSync(file));
  return hash.digest("hex").slice(0, 12);
}

/**
 * Sees to it that the guest's disks are there, and returns their folder. Fails with one line of advice where they can't be
 * made: Unobtainable when the mirror lacks what they are made of.
 *
 * - `environment`: of the programs that build; with the mark by which a run finds what it left.
 * - `signal`: ends the building; what was built is removed.
 */
export async function ensureGuestImage({ log, environment, signal }) {
  checkMachine();
  await installTools({ log });
  const directory = path.join(home, recipeHash());
  if (existsSync(directory)) return directory;
  mkdirSync(home, { recursive: true });
  for (const name of readdirSync(home)) rmSync(path.join(home, name), { recursive: true, force: true });
  const building = path.join(home, "building");
  mkdirSync(building);
  log("building a whole host for tests (Debian 13, in a minute)");
  try {
    await build(building, { environment, signal });
    renameSync(building, directory);
  } finally {
    rmSync(building, { recursive: true, force: true });
  }
  return directory;
}

async function installTools({ log }) {
  try {
    await installPackages(tools, { log, why: "a whole host for tests" });
  } catch (error) {
    throw error instanceof Advice && isAbsent.test(error.message) ? new Unobtainable(error.message) : error;
  }
}

function checkMachine() {
  if (process.getuid() !== 0) throw new Advice("a whole host for tests is built by root: run this as root");
  if (process.arch !== "x64") throw new Advice(`a whole host for tests is x64, not ${process.arch}`);
  const { bavail, bsize } = statfsSync(root);
  if (bavail * bsize < neededDisk) {
    throw new Advice(`a whole host for tests needs ${neededDisk / gibibyte} GiB of disk below ${root}`);
  }
  if (freemem() < neededMemory) {
    throw new Advice(`a whole host for tests needs ${neededMemory / gibibyte} GiB of free memory`);
  }
}

async function build(directory, { environment, signal }) {
  const options = { quiet: true, cwd: directory, env: { ...process.env, ...environment }, signal };
  const mirror = await findMirror(options);
  const bootstrap = (args) => debootstrap([...slim, ...args, mirror], options);

  await bootstrap([
    "--variant=apt",
    `--include=${emulatorPackages}`,
    suite,
    path.join(directory, "emulator"),
  ]);

  await must("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", "key"], options);
  const setup = path.join(directory, "setup.sh");
  const key = readFileSync(path.join(directory, "key.pub"), "utf8").trim();
  writeFileSync(setup, `KEY='${key}'\n${readFileSync(setupScript, "utf8")}`);
  const modules = bootModules.join("\\n");
  const initramfs = "MODULES=list\\nCOMPRESS=zstd\\nCOMPRESSLEVEL=1\\n";
  const guest = path.join(directory, "root");
  await bootstrap([
    "--variant=minbase",
    `--include=${guestPackages}`,
    `--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"`,
    `--essential-hook=printf "${initramfs}" >"$1/etc/initramfs-tools/conf.d/guest"`,
    `--essential-hook=printf "${modules}\\n" >"$1/etc/initramfs-tools/modules"`,
    `--customize-hook=chroot "$1" /bin/sh -s <${setup}`,
    suite,
    guest,
  ]);

  // The emulator loads them itself.
  for (const name of ["vmlinuz", "initrd"]) {
    const found = readdirSync(path.join(guest, "boot")).find((file) => file.startsWith(name));
    renameSync(path.join(guest, "boot", found), path.join(directory, name));
  }
  makeSparse(path.join(directory, "root.img"), 3 * gibibyte);
  const project = ["-O", "quota,project", "-E", "quotatype=prjquota"];
  await must("mkfs.ext4", ["-q", "-F", "-L", "root", ...project, "-d", guest, "root.img"], options);
  makeSparse(path.join(directory, "docker.img"), 4 * gibibyte);
  await must("mkfs.xfs", ["-q", "-L", "docker", "docker.img"], options);
  rmSync(guest, { recursive: true });
  chmodSync(path.join(directory, "key"), 0o600);
}

function makeSparse(file, bytes) {
  writeFileSync(file, "");
  truncateSync(file, bytes);
}

/** In a mount namespace of its own, so that a build that is killed leaves no mount. */
async function debootstrap(args, options) {
  const command = ["--mount", "--propagation", "slave", "mmdebstrap", "--mode=root", ...args];
  const { status, output } = await run("unshare", command, { ...options, timeoutMs: buildTimeoutMs });
  if (status === 0) return;
  const errors = output.split("\n").filter((line) => line.startsWith("E:"));
  const reason = errors.slice(-2).join(" ") || output.trim().split("\n").at(-1);
  const Kind = isAbsent.test(output) ? Unobtainable : Advice;
  throw new Kind(`a whole host for tests cannot be built from ${args.at(-1)}: ${reason}`);
}

/** The Debian mirror that this machine's apt is configured with. */
async function findMirror(options) {
  const args = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
  const output = await must("apt-get", args, options);
  const mirror = output.split("\n").find((uri) => uri !== "" && !uri.includes("security"));
  if (mirror === undefined) throw new Unobtainable("apt has no mirror to build a whole host for tests from");
  return mirror;
}
