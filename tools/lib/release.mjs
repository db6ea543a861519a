// What of this checkout runs on a host: the launchers, the bundled daemon and sandboxctl, the toolbox, their own Node, and the files of the
// service. Installed by systemd/install.sh.
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { must, root } from "./process.mjs";

/** What is bundled or compiled, and all that is asked to start it. */
const own = ["bin", "dist/bundle", "dist/toolbox", "systemd"];

/** The version, and a hash of what tells one build of it from another: all of these files, and the Node that runs them. */
function releaseId() {
  const { version, dependencies } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
  const hash = createHash("sha256").update(dependencies.node);
  for (const folder of own) {
    for (const name of readdirSync(path.join(root, folder), { recursive: true }).sort()) {
      const file = path.join(root, folder, name);
      if (statSync(file).isFile()) hash.update(name).update(readFileSync(file));
    }
  }
  return `${version}-${hash.digest("hex").slice(0, 12)}`;
}

/**
 * Writes a tar file of all that a host needs, and returns the release's id. The daemon and the toolbox must be compiled. `id` replaces the
 * id, so that tests have two releases of one build.
 */
export async function packRelease(file, { id = releaseId() } = {}) {
  const directory = mkdtempSync(path.join(tmpdir(), "sandboxd-release-"));
  try {
    writeFileSync(path.join(directory, "RELEASE"), `${id}\n`);
    const owner = ["--owner=0", "--group=0", "--numeric-owner"];
    const content = ["package.json", ...own, "node_modules/node"];
    await must("tar", [...owner, "-cf", file, "-C", directory, "RELEASE", "-C", root, ...content], {
      quiet: true,
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
  return id;
}
