// The way to the toolbox of a sandbox: found, started, kept, refused, and taken by nobody who is in its place.

import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { frame, reader, request } from "../../src/toolbox/protocol.ts";
import { type Contained, contain } from "../harness/contained.ts";
import { engineObstacle } from "../harness/engine.ts";
import { ask, ping } from "../harness/inside.ts";
import { present } from "../harness/sandboxes.ts";

const run = promisify(execFile);
const source = join(import.meta.dirname, "../impostor/impostor.c");
const name = `link-${process.pid}`;
const patienceMs = 800;

async function buildImpostor(directory: string): Promise<string> {
  const program = join(directory, "impostor");
  await run("gcc", ["-D_GNU_SOURCE", "-static", "-O1", "-o", program, source]);
  return program;
}

describe.skipIf(engineObstacle !== undefined)(`the toolbox (${engineObstacle ?? "engine"})`, () => {
  let contained: Contained;
  beforeAll(async () => {
    contained = await contain({ name, program: buildImpostor, args: ["idle"], patienceMs });
  });
  afterAll(() => contained?.close());
  // each begins with a sandbox in which nothing but its main command runs
  beforeEach(restart);

  const known = () => ({
    id: name,
    uid: contained.plan.uid,
    containerId: contained.containerId,
    toolbox: contained.version,
  });
  const container = () => contained.docker.getContainer(contained.containerId);

  async function restart(): Promise<void> {
    await container().restart({ t: 0 });
    contained.inside.tell(name, { ...known(), startedAtMs: performance.now() });
  }

  /** Runs the program that a tenant might, in a way of its. */
  async function impersonate(...mode: readonly string[]): Promise<void> {
    const { uid } = contained.plan;
    const command = ["/bin/probe", ...mode];
    await contained.inside.runtime.launch(contained.containerId, {
      command,
      user: `${uid}:${uid}`,
      workingDir: "/",
    });
    await sleep(100);
  }

  const pingOnce = () => ping(contained.inside, name);
  const launches = () => contained.inside.launches();
  const openDescriptors = () => readdirSync("/proc/self/fd").length;

  test("is started once, by whoever comes first, and answers from then on", async () => {
    const before = launches();
    const pids = await Promise.all(Array.from({ length: 10 }, pingOnce));
    expect(new Set(pids).size).toBe(1);
    expect(await pingOnce()).toBe(pids[0]);
    expect(launches()).toBe(before + 1);
  });

  test("that was killed is replaced by another", async () => {
    const first = await pingOnce();
    await impersonate("kill", `${first}`);
    const before = launches();
    expect(await pingOnce()).not.toBe(first);
    expect(launches()).toBe(before + 1);
  });

  test("of a sandbox that was started again behind the daemon is another", async () => {
    await pingOnce();
    const before = launches();
    await container().restart({ t: 0 });
    await pingOnce();
    expect(launches()).toBe(before + 1);
  });

  test("is nowhere in a sandbox that does not run, or has none", async () => {
    const { inside } = contained;
    await expect(inside.link.open("nobody")).rejects.toMatchObject({ reason: "SANDBOX_NOT_FOUND" });
    for (const state of ["PAUSED", "STOPPED", "CREATING"] as const) {
      inside.tell(name, { ...known(), state });
      const refusal = { reason: "INVALID_STATE", details: { metadata: { state } } };
      await expect(inside.link.open(name)).rejects.toMatchObject(refusal);
      await expect(inside.link.openProcess(name, "one")).rejects.toMatchObject(refusal);
    }
    const { toolbox: _, ...earlier } = known();
    inside.tell(name, earlier);
    const refusal = {
      reason: "TOOLBOX_UNAVAILABLE",
      details: { hint: expect.stringContaining("earlier release") },
    };
    await expect(inside.link.open(name)).rejects.toMatchObject(refusal);
  });

  test("cannot be started where the container does not run, which the daemon has not heard of yet", async () => {
    await container().kill();
    await expect(pingOnce()).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
  });

  test("says so where the sandbox has all its processes", async () => {
    await impersonate("crowd");
    // the engine can put the server in beside the limit or not, and that can not fork
    const answer = await ask(contained.inside, name, request().frame(frame.ping)).then(
      (got) => {
        const payload = reader(present(got).payload);
        return [got?.type, payload.u32(), payload.str()];
      },
      (error: unknown) => (error as { readonly reason: string }).reason,
    );
    expect([[frame.error, constants.errno.EAGAIN, "fork"], "PROCESS_LIMIT_REACHED"]).toContainEqual(answer);
  });

  test("of a sandbox that was frozen behind the daemon is not waited for in vain", async () => {
    await pingOnce();
    await container().pause();
    try {
      const began = performance.now();
      await expect(pingOnce()).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
      expect(performance.now() - began).toBeLessThan(patienceMs * 5);
    } finally {
      await container().unpause();
    }
    await pingOnce();
  });

  test("has no keeper of a process that is none", async () => {
    await pingOnce();
    for (const id of ["one", "..", "../toolbox", ""])
      expect(await contained.inside.link.openProcess(name, id)).toBeUndefined();
  });

  test("costs a descriptor while its sandbox runs, and none after", async () => {
    const before = openDescriptors();
    await pingOnce();
    await pingOnce();
    await expect.poll(openDescriptors).toBe(before + 1);
    contained.inside.tell(name, undefined);
    await expect.poll(openDescriptors).toBe(before);
  });

  test("is not waited for by who has given up", async () => {
    await impersonate("deaf");
    const giving = new AbortController();
    const calls = Array.from({ length: 40 }, () =>
      contained.inside.link.open(name, { signal: giving.signal }),
    );
    setTimeout(() => giving.abort(new Error("gave up")), 50);
    const outcomes = await Promise.allSettled(calls);
    for (const one of outcomes) if (one.status === "fulfilled") one.value.close();
    expect(outcomes.some((one) => one.status === "rejected" && one.reason.message === "gave up")).toBe(true);
  });

  describe("whose place a program of the sandbox's has taken", () => {
    test.each(["garbage", "nothing", "silent"])("and that answers with %s, is found out", async (mode) => {
      await impersonate(mode);
      await expect(pingOnce()).rejects.toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
    });

    test("and that takes no connection, is found out", async () => {
      await impersonate("deaf");
      const outcomes = await Promise.allSettled(Array.from({ length: 20 }, pingOnce));
      for (const one of outcomes)
        expect(one).toMatchObject({ status: "rejected", reason: { reason: "TOOLBOX_UNAVAILABLE" } });
    });

    test("and that hangs up in the middle of a frame, has said nothing", async () => {
      await impersonate("half");
      expect(await ask(contained.inside, name, request().frame(frame.ping))).toBeUndefined();
    });

    test("and that says more than anyone reads, is not read, and takes no memory", async () => {
      await impersonate("endless");
      const before = process.memoryUsage().rss;
      const connections = await Promise.all(
        Array.from({ length: 20 }, () => contained.inside.link.open(name)),
      );
      for (const connection of connections) {
        await connection.send(request().frame(frame.ping));
        expect((await connection.receive())?.type).toBe(frame.output);
      }
      await sleep(500);
      expect(process.memoryUsage().rss - before).toBeLessThan(30 * 2 ** 20);
      for (const connection of connections) connection.close();
    });

    test("by a link, is put back and the link not followed", async () => {
      await impersonate("link");
      const before = launches();
      await pingOnce();
      expect(launches()).toBe(before + 1);
    });

    test("over and over, by all that has a name, answers or is refused", async () => {
      await impersonate("swap");
      const before = openDescriptors();
      const outcomes: PromiseSettledResult<number>[] = [];
      for (let round = 0; round < 3; round++)
        outcomes.push(...(await Promise.allSettled(Array.from({ length: 4 }, pingOnce))));
      for (const one of outcomes)
        if (one.status === "rejected" && !String(one.reason).includes("no pong"))
          expect(one.reason).toMatchObject({ reason: "TOOLBOX_UNAVAILABLE" });
      await expect.poll(openDescriptors).toBeLessThanOrEqual(before + 1);
    });
  });
});
