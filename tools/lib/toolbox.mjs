// The toolbox in dist/toolbox/: one static program, compiled again when a source is newer.
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import path from "node:path";
import { installPackages } from "./packages.mjs";
import { Advice, root, run } from "./process.mjs";

const source = path.join(root, "docker/toolbox");
const program = path.join(root, "dist/toolbox/toolbox");

// Nothing of the time or the place of the build is in the result: the same sources and compiler give the same bytes.
const flags = [
  ..."-D_GNU_SOURCE -std=c17 -Wall -Wextra -Werror -O2".split(" "),
  ..."-fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE -static-pie -Wl,-z,relro,-z,now,-z,noexecstack".split(
    " ",
  ),
  ..."-ffunction-sections -fdata-sections -Wl,--gc-sections -Wl,--build-id=none -s".split(" "),
];

const sources = () => readdirSync(source).filter((name) => /\.[ch]$/.test(name));

function isFresh() {
  if (!existsSync(program)) return false;
  const built = statSync(program).mtimeMs;
  // The folder's own time moves when a file in it is removed.
  return [source, ...sources().map((name) => path.join(source, name))].every(
    (file) => statSync(file).mtimeMs <= built,
  );
}

/** Whether there is a compiler, and a C library to link statically. */
async function canCompile() {
  const { status, output } = await run("gcc", ["-print-file-name=libc.a"], { quiet: true });
  // The name alone comes back for what is not found.
  return status === 0 && path.isAbsolute(output.trim());
}

async function ensureCompiler({ log }) {
  if (await canCompile()) return;
  await installPackages(["gcc", "libc6-dev"], { log, why: "the toolbox" });
  if (!(await canCompile())) throw new Advice("the toolbox needs gcc and a static C library: install them");
}

/** Compiles docker/toolbox/ into dist/toolbox/toolbox unless that is up to date, and returns its path. Fails with the compiler's words. */
export async function ensureToolbox({ log }) {
  if (isFresh()) return program;
  await ensureCompiler({ log });
  const started = new Date();
  log("compiling the toolbox");
  mkdirSync(path.dirname(program), { recursive: true });
  // Whoever builds or runs it at the same time has the old one or the new one.
  const partial = `${program}.${process.pid}`;
  const files = sources().filter((name) => name.endsWith(".c"));
  try {
    const { status } = await run("gcc", [...flags, "-o", partial, ...files.sort()], { cwd: source });
    if (status !== 0) throw new Advice("the toolbox does not compile: see above");
    // What was saved meanwhile is newer, and so is compiled next time.
    utimesSync(partial, started, started);
    renameSync(partial, program);
  } finally {
    rmSync(partial, { force: true });
  }
  return program;
}
