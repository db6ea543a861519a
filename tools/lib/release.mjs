// What of this checkout runs on a host: the launcher, the compiled daemon and toolbox, the packages that it needs, its own Node, and the files of
// its service. Installed by systemd/install.sh.
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { must, root } from "./process.mjs";

/** The folders of the packages that a production installation has, by package-lock.json. */
function packages() {
  const lock = JSON.parse(readFileSync(path.join(root, "package-lock.json"), "utf8"));
  return Object.entries(lock.packages)
    .filter(([name, { dev, optional }]) => name !== "" && !dev && !optional)
    .map(([name]) => name)
    .filter((name) => existsSync(path.join(root, name)));
}

/** The version, and a hash of what tells one build of it from another. */
function releaseId() {
  const hash = createHash("sha256").update(readFileSync(path.join(root, "package-lock.json")));
  const whole = ["bin", "dist/toolbox"];
  for (const folder of [...whole, "dist/src", "dist/gen", "systemd"]) {
    for (const name of readdirSync(path.join(root, folder), { recursive: true }).sort()) {
      const file = path.join(root, folder, name);
      if (whole.includes(folder) || /\.(js|service|sh|sysusers|tmpfiles)$/.test(name))
        hash.update(name).update(readFileSync(file));
    }
  }
  const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
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
    const content = ["package.json", "bin", "dist", "systemd", ...packages()];
    await must("tar", [...owner, "-cf", file, "-C", directory, "RELEASE", "-C", root, ...content], {
      quiet: true,
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
  return id;
}
