// npm run proto: lints the contract and refuses changes that break its callers.
//
// It is compared with, in this order: PROTO_BASE (any commit) when set; the commit where this branch left main; on main
// itself, HEAD when the contract has changes that are not committed, else the commit before HEAD. A base that this clone
// lacks (it may be shallow) or that has no contract yet is nothing to break.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { main, must, root, run } from "./lib/process.mjs";

const contract = "proto/sandboxd";
const buf = path.join(root, "node_modules/.bin/buf");

/** What git answers, or undefined when it fails: no such commit, no repository. */
async function git(...args) {
  const { status, output } = await run("git", args, { quiet: true });
  return status === 0 ? output.trim() : undefined;
}

const commitOf = (name) => git("rev-parse", "--quiet", "--verify", `${name}^{commit}`);

async function baseCommit() {
  if (process.env.PROTO_BASE) return await commitOf(process.env.PROTO_BASE);
  const head = await commitOf("HEAD");
  if (head === undefined) return undefined;
  for (const main of ["origin/main", "main"]) {
    const fork = await git("merge-base", main, "HEAD");
    if (fork !== undefined && fork !== head) return fork;
  }
  const changes = await git("status", "--porcelain", "--", contract);
  return changes ? head : await commitOf("HEAD^");
}

/** Lays the base's contract out in a folder. False when it has none. */
async function checkOut(commit, directory) {
  if (!(await git("ls-tree", commit, "--", contract))) return false;
  const archive = path.join(directory, "base.tar");
  await must("git", ["archive", "--output", archive, commit, "--", "proto", "buf.yaml"], { quiet: true });
  await must("tar", ["-xf", archive, "-C", directory], { quiet: true });
  rmSync(archive);
  return true;
}

await main(async () => {
  await must(buf, ["lint"]);
  const commit = await baseCommit();
  const directory = mkdtempSync(path.join(tmpdir(), "sandboxd-proto-"));
  try {
    if (commit === undefined || !(await checkOut(commit, directory))) {
      console.log("proto: lint passed; there is no earlier contract to compare with");
      return 0;
    }
    const { status } = await run(buf, ["breaking", "--against", directory]);
    console.log(
      `proto: lint passed; ${status === 0 ? "nothing breaks" : "changes break"} callers of ${commit.slice(0, 9)}`,
    );
    return status;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
