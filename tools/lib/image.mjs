// The base image `sandboxd-base:latest`: built on a pulled busybox where a registry answers, else packed from the
// static busybox of this machine.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { call } from "./engine-api.mjs";
import { installPackages } from "./packages.mjs";
import { Advice, must, root } from "./process.mjs";

const recipe = path.join(root, "docker/base");
const repository = "sandboxd-base";
// Not below "sandboxd.", which is for the labels of sandboxes.
const recipeLabel = "base-image.recipe";

/** A registry that has not begun to answer by then is taken for absent. */
const registryTimeoutMs = 20_000;

/** Identifies the recipe's content: an image of an older recipe is made again. */
function recipeHash() {
  const hash = createHash("sha256");
  for (const entry of readdirSync(recipe, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) hash.update(readFileSync(path.join(entry.parentPath ?? entry.path, entry.name)));
  }
  return hash.digest("hex").slice(0, 12);
}

async function isThere(socket, hash) {
  const { status, body } = await call(socket, "GET", `/images/${repository}:latest/json`);
  return status === 200 && JSON.parse(body).Config?.Labels?.[recipeLabel] === hash;
}

function archiveOf(directory) {
  const owner = ["--owner=0", "--group=0", "--numeric-owner"];
  return spawn("tar", ["-C", directory, ...owner, "-c", "."], { stdio: ["ignore", "pipe", "inherit"] })
    .stdout;
}

/** An engine reports a failed build or import in the body of a 200. */
function failureIn({ status, body }) {
  if (status !== 200) return body.trim();
  const failed = body.split("\n").find((line) => line.includes('"errorDetail"'));
  return failed ? JSON.parse(failed).error : undefined;
}

async function build(socket, hash) {
  const labels = encodeURIComponent(JSON.stringify({ [recipeLabel]: hash }));
  try {
    const answer = await call(
      socket,
      "POST",
      `/build?t=${repository}:latest&rm=1&forcerm=1&labels=${labels}`,
      {
        body: archiveOf(recipe),
        contentType: "application/x-tar",
        timeoutMs: registryTimeoutMs,
      },
    );
    return failureIn(answer);
  } catch (error) {
    return error.message;
  }
}

async function pack(socket, hash) {
  const busybox = ["/bin/busybox", "/usr/bin/busybox"].find((file) => existsSync(file));
  const directory = mkdtempSync(path.join(tmpdir(), "sandboxd-base-"));
  try {
    chmodSync(directory, 0o755);
    for (const name of ["bin", "dev", "proc", "sys"]) mkdirSync(path.join(directory, name));
    copyFileSync(busybox, path.join(directory, "bin/busybox"));
    const applets = (await must(busybox, ["--list"], { quiet: true })).trim().split("\n");
    for (const applet of applets) {
      if (applet !== "busybox") symlinkSync("busybox", path.join(directory, "bin", applet));
    }
    await must("sh", [path.join(recipe, "prepare.sh"), directory], { quiet: true });
    const changes = ['CMD ["sh"]', "ENV PATH=/bin", "ENV HOME=/home/sandbox", "WORKDIR /home/sandbox"];
    const query = [...changes, `LABEL ${recipeLabel}=${hash}`].map(
      (line) => `changes=${encodeURIComponent(line)}`,
    );
    const answer = await call(
      socket,
      "POST",
      `/images/create?fromSrc=-&repo=${repository}&tag=latest&${query.join("&")}`,
      { body: archiveOf(directory), contentType: "application/x-tar", timeoutMs: 120_000 },
    );
    const failure = failureIn(answer);
    if (failure) throw new Error(`the engine did not import the base image: ${failure}`);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Sees to it that the engine has the base image. `registry` tells whether to try one: a private engine has a network
 * without a way out, so it never reaches any.
 */
export async function ensureBaseImage(socket, { log, registry }) {
  const hash = recipeHash();
  if (await isThere(socket, hash)) return;
  log(`building the image ${repository}:latest`);
  const failure = registry ? await build(socket, hash) : "not tried";
  if (failure === undefined) return;
  if (registry) log(`no registry gave busybox (${failure}): packing this machine's own`);
  const isDebian = existsSync("/usr/bin/dpkg-query");
  if (!isDebian)
    throw new Advice("no registry gave busybox: run 'docker pull busybox' first, or use a Debian machine");
  await installPackages(["busybox-static"], { log, why: "the base image" });
  await pack(socket, hash);
}
