import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { createLog } from "../../../src/observe/log.ts";
import { type BackupPolicy, createBackups } from "../../../src/workspace/backups.ts";
import { workspaced } from "./fixture.ts";

const isRoot = process.getuid?.() === 0;

/** Workspaces whose files are in a directory of root's, which an archive is really made of. */
async function backedUp(target: BackupPolicy["target"], { everyMs = 200 } = {}) {
  const parts = workspaced();
  await parts.create("home");
  const files = mkdtempSync(join(tmpdir(), "backed-up-"));
  onTestFinished(() => rmSync(files, { recursive: true, force: true }));
  writeFileSync(join(files, "words"), "kept");
  const { uid } = parts.workspaces.get("home");
  for (const path of [join(files, "words"), files]) chownSync(path, uid, uid);
  const outcomes: string[] = [];
  const backups = createBackups({
    policy: { everyMs, timeoutMs: 20_000, target },
    repository: parts.repository,
    workspaces: parts.workspaces,
    snapshots: {
      readingNow: (id, read) => read(files, parts.workspaces.get(id)),
    },
    onEnd: (outcome) => void outcomes.push(outcome),
    log: createLog({ level: "fatal" }),
  });
  onTestFinished(() => backups.close());
  return { ...parts, backups, outcomes };
}

function temporary(): string {
  const directory = mkdtempSync(join(tmpdir(), "backups-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

describe.skipIf(!isRoot)("a backup", () => {
  test("to a directory keeps the newest archives, each whole, and is told in the workspace's record", async () => {
    const directory = temporary();
    const { outcomes, repository } = await backedUp({ kind: "directory", directory, keep: 2 });
    await vi.waitFor(() => expect(outcomes.length).toBeGreaterThanOrEqual(4), { timeout: 30_000 });
    const names = readdirSync(join(directory, "acme", "home"));
    expect(names.filter((name) => name.endsWith(".tar.zst")).length).toBeLessThanOrEqual(2);
    const [newest = ""] = names.filter((name) => name.endsWith(".tar.zst")).toReversed();
    const archive = readFileSync(join(directory, "acme", "home", newest));
    expect(archive.readUInt32LE(0)).toBe(0xfd2fb528);
    expect(repository.get("home")?.backup).toMatchObject({ error: "" });
    expect(repository.get("home")?.backup?.bytes).toBeGreaterThan(20);
  });

  test("to a command hands it the archive and whose it is", async () => {
    const directory = temporary();
    const script = `cat > ${directory}/$BACKUP_TENANT-$BACKUP_WORKSPACE.tar.zst`;
    const { outcomes } = await backedUp(
      { kind: "command", command: ["sh", "-c", script] },
      { everyMs: 5_000 },
    );
    await vi.waitFor(() => expect(outcomes[0]).toBe("ok"), { timeout: 20_000 });
    expect(readFileSync(join(directory, "acme-home.tar.zst")).readUInt32LE(0)).toBe(0xfd2fb528);
  });

  test("that fails says why, is tried again, and leaves no part of an archive", async () => {
    const failing = {
      kind: "command",
      command: ["sh", "-c", "cat >/dev/null; echo no space >&2; exit 3"],
    } as const;
    const { outcomes, repository, backups } = await backedUp(failing);
    await vi.waitFor(() => expect(outcomes.length).toBeGreaterThanOrEqual(2), { timeout: 20_000 });
    expect(new Set(outcomes)).toEqual(new Set(["failed"]));
    expect(repository.get("home")?.backup?.error).toBe("sh ended with 3: no space");
    expect(backups.problems()).toEqual(["home: sh ended with 3: no space"]);
    const deaf = await backedUp({ kind: "command", command: ["true"] });
    await vi.waitFor(() => expect(deaf.outcomes.length).toBeGreaterThanOrEqual(1), { timeout: 20_000 });
    const directory = join(temporary(), "file");
    writeFileSync(directory, "");
    const unwritable = await backedUp({ kind: "directory", directory, keep: 1 });
    await vi.waitFor(() => expect(unwritable.outcomes[0]).toBe("failed"), { timeout: 20_000 });
  });

  test("whose archive breaks off is never a whole one to its command", async () => {
    const directory = temporary();
    const script = `cat > ${directory}/part && mv ${directory}/part ${directory}/whole`;
    const parts = workspaced();
    await parts.create("home");
    const outcomes: string[] = [];
    const backups = createBackups({
      policy: {
        everyMs: 2_000,
        timeoutMs: 20_000,
        target: { kind: "command", command: ["sh", "-c", script] },
      },
      repository: parts.repository,
      workspaces: parts.workspaces,
      snapshots: {
        async *readingNow<T>(): AsyncGenerator<T> {
          yield Buffer.alloc(1_024) as T;
          throw new Error("the archive broke off");
        },
      },
      onEnd: (outcome) => void outcomes.push(outcome),
      log: createLog({ level: "fatal" }),
    });
    onTestFinished(() => backups.close());
    await vi.waitFor(() => expect(outcomes).toContain("failed"), { timeout: 20_000 });
    expect(parts.repository.get("home")?.backup?.error).toBe("the archive broke off");
    expect(readdirSync(directory)).not.toContain("whole");
  });
});
