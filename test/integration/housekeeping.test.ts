// That what nobody needs is removed in time, and nothing else.

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type Docker from "dockerode";
import { afterEach, describe, expect, test } from "vitest";
import { EventType } from "../../gen/sandboxd/v1/event_pb.ts";
import { ActorKind, SandboxState, TransitionReason } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { baseImage, engineObstacle, ownEngine } from "../harness/engine.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  sleeping,
  startHost,
  type TestHost,
  whereIs,
} from "../harness/sandboxes.ts";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe.skipIf(engineObstacle !== undefined)(`housekeeping (${engineObstacle ?? "engine"})`, () => {
  let host: TestHost;
  let engine: PrivateEngine | undefined;
  afterEach(async () => {
    await host?.daemon.cleanup();
    await engine?.stop();
    engine = undefined;
  });

  const start = async (housekeeping: Record<string, string | number | boolean>) => {
    host = await startHost({ config: { housekeeping: { period: "1s", ...housekeeping } } });
  };
  const listed = async () =>
    (await host.sandboxes.listSandboxes({})).sandboxes.map(({ sandboxId }) => sandboxId);
  const run = async (id: string, script: string, state: SandboxState) => {
    await host.run(id, script);
    await host.until(id, isIn(state));
  };

  test("what ended is deleted after its time, with its container and the reason", async () => {
    await start({ keep_stopped_age: "3s" });
    await run("runs", sleeping, SandboxState.RUNNING);
    await run("failed", "exit 3", SandboxState.FAILED);
    await run("done", "exit 0", SandboxState.STOPPED);
    expect(whereIs(await host.get("failed"))).toEqual({ state: "FAILED", reason: "EXITED" });
    await eventually("the deletions", listed, (ids) => ids.length === 1);
    expect(await listed()).toEqual(["runs"]);
    expect((await refusalOf(host.get("done"))).reason).toBe("SANDBOX_NOT_FOUND");
    await eventually("one container", host.containers, (found) => found.length === 1);

    const { events } = await host.events.listEvents({ filter: { sandboxId: "failed" } });
    const last = present(events.at(-1));
    expect(last.type).toBe(EventType.SANDBOX_DELETED);
    expect(last.sandbox?.status?.transition).toMatchObject({
      from: SandboxState.DELETING,
      reason: TransitionReason.RETIRED,
      actor: { kind: ActorKind.POLICY },
    });
    expect(events.at(-2)?.sandbox?.status?.transition?.message).toMatch(
      /^no longer kept: failed for \d+ s, and kept for 3 s$/,
    );
  });

  test("of those that ended so many are kept, the newest", async () => {
    await start({ keep_stopped_count: 2 });
    for (const id of ["d", "c", "b", "a"]) await run(id, "exit 0", SandboxState.STOPPED);
    await eventually("the deletions", listed, (ids) => ids.length === 2);
    await pause(2_000);
    expect(await listed()).toEqual(["a", "b"]);
    await host.sandboxes.startSandbox({ sandboxId: "b" });
  });

  test("a dry run says what it would delete, and deletes nothing", async () => {
    await start({ keep_stopped_age: "1s", keep_stopped_count: 0, dry_run: true });
    await run("done", "exit 0", SandboxState.STOPPED);
    await eventually("a line", host.daemon.logs, (logs) => logs.includes("would delete it: stopped"));
    await pause(3_000);
    expect(await listed()).toEqual(["done"]);
    expect(await host.containers()).toHaveLength(1);
  });

  test("images that nothing uses or names are removed from a full disk, others never", async () => {
    engine = await ownEngine();
    host = await startHost({
      engine: engine.socket,
      config: {
        images: { pull: "missing" },
        housekeeping: {
          period: "1s",
          collect_images: true,
          images_high_percent: 0,
          images_low_percent: 0,
          images_minimum_age: "0s",
          dry_run: true,
        },
      },
    });
    const { docker } = host;
    await host.run("user", sleeping);
    const dangling = await imported(docker, "dangling");
    const unused = await imported(docker, "unused", "unused:1");
    await docker.getImage(unused).tag({ repo: "unused", tag: "2" });
    const foreign = await imported(docker, "foreign", "foreign:1");
    await docker.createContainer({ Image: "foreign:1", Cmd: ["/absent"] });
    const ids = async () => (await docker.listImages()).map(({ Id }) => Id).toSorted();
    const base = (await docker.getImage(baseImage).inspect()).Id;
    const before = await ids();
    // "foreign" may have been looked at before it had its container
    const lines = [dangling, "unused:1"].map((image) => `"image":"${image}","outcome":"dry run"`);
    await eventually("a line of each", host.daemon.logs, (logs) =>
      lines.every((line) => logs.includes(line)),
    );
    expect(await ids(), "a dry run").toEqual(before);
    await host.daemon.cleanup();

    host = await startHost({
      engine: engine.socket,
      config: {
        images: { pull: "missing" },
        housekeeping: {
          period: "1s",
          collect_images: true,
          images_high_percent: 0,
          images_low_percent: 0,
          images_minimum_age: "0s",
        },
      },
    });
    await host.run("user", sleeping);
    await eventually("the removals", ids, (found) => !found.includes(dangling) && !found.includes(unused));
    await pause(3_000);
    expect(await ids()).toEqual([base, foreign].toSorted());
    expect((await host.get("user")).status?.state).toBe(SandboxState.RUNNING);
  });
});

/** An image of one file. Without a name it is dangling. Returns its id. */
async function imported(docker: Docker, content: string, name?: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), "image-"));
  try {
    writeFileSync(join(directory, content), content);
    execFileSync("tar", ["-C", directory, "-cf", join(directory, "image.tar"), content]);
    const [repo, tag] = name?.split(":") ?? [];
    const progress = await docker.importImage(
      join(directory, "image.tar"),
      repo === undefined ? {} : { repo, tag },
    );
    const said = await new Promise<readonly { readonly status?: string }[]>((resolve, reject) => {
      docker.modem.followProgress(progress, (error, output) =>
        error === null ? resolve(output) : reject(error),
      );
    });
    return present(said.at(-1)?.status);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
