// What sandboxes lose with what holds them up: an engine that is restarted without live-restore takes all of them along, a shim
// that is killed takes its own.

import { existsSync, readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { RestartMode } from "../../gen/sandboxd/v1/lifecycle_pb.ts";
import { type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { PrivateEngine } from "../../tools/lib/engine.mjs";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  present,
  type SpecInit,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
  whereIs,
} from "../harness/sandboxes.ts";

let engine: PrivateEngine | undefined;
let host: TestHost | undefined;
let witness: EventWitness | undefined;
afterEach(async () => {
  // the containers go with their engine, which may not answer any more
  await host?.daemon.stop();
  await engine?.stop();
  await host?.daemon.cleanup().catch(() => undefined);
  await witness?.close();
});

async function begin() {
  engine = await ownEngine();
  witness = await witnessEvents();
  const config = { engine: { relist_period: "1s" }, ...witness.config };
  host = await startHost({ engine: engine.socket, config });
  return { engine, host, witness };
}

/** The states of a sandbox that its events tell, in their order. */
async function lifeOf({ events }: TestHost, id: string): Promise<readonly string[]> {
  const page = await events.listEvents({ pageSize: 1_000, filter: { sandboxId: id } });
  return page.events.map(({ sandbox }) => whereIs(present(sandbox)).state);
}

test.skipIf(engineObstacle)(
  "an engine restarted without live-restore ends its sandboxes once, and those run again whose policy says so",
  async () => {
    const { engine: own, host: at, witness: heard } = await begin();
    const create = (sandboxId: string, spec: Partial<SpecInit>) =>
      at.sandboxes.createSandbox({ sandboxId, tenant, spec: { ...specOf(sleeping), ...spec } });
    const restart = (mode: RestartMode, seconds = 1n) => ({ restart: { mode, delay: { seconds } } });
    await create("never", {});
    await create("on-failure", restart(RestartMode.ON_FAILURE));
    await create("unless-stopped", restart(RestartMode.UNLESS_STOPPED));
    const lifetime = { ttl: { seconds: 60n } };
    const leased = await create("leased", { lifetime, ...restart(RestartMode.UNLESS_STOPPED, 20n) });
    await create("stopped", restart(RestartMode.UNLESS_STOPPED));
    await at.sandboxes.stopSandbox({ sandboxId: "stopped" });
    const stopped = await at.get("stopped");

    const { generation = 0n } = leased.sandbox ?? {};
    await at.sandboxes.renewSandbox({ sandboxId: "leased", generation, ttl: { seconds: 3n } });
    await own.restart();
    const never = await at.until("never", isIn(SandboxState.FAILED));
    for (const id of ["on-failure", "unless-stopped"]) {
      // its end may not have been seen yet
      const isAgain = (sandbox: Sandbox) =>
        isIn(SandboxState.RUNNING)(sandbox) && sandbox.status?.restarts !== undefined;
      const again = await at.until(id, isAgain);
      expect(again.status?.restarts?.count, id).toBe(1n);
    }
    expect(whereIs(never).reason, never.status?.transition?.message).toBe("SIGNALED");
    const isGone = (life: readonly string[]) => life.at(-1) === "DELETED";
    const life = await eventually("the end of the lease", () => lifeOf(at, "leased"), isGone);
    expect(life.slice(-3), "its lease ran on, and it with it no more").toEqual([
      "BACKING_OFF",
      "DELETING",
      "DELETED",
    ]);
    expect(await at.get("stopped")).toEqual(stopped);
    const running = (await at.containers()).filter(({ State }) => State === "running");
    expect(running).toHaveLength(2);
    const begun = ["PENDING", "CREATING", "RUNNING"];
    expect(await lifeOf(at, "never")).toEqual([...begun, "FAILED"]);
    for (const id of ["on-failure", "unless-stopped"]) {
      expect(await lifeOf(at, id)).toEqual([...begun, "BACKING_OFF", "CREATING", "RUNNING"]);
    }
    await heard.check(at);
  },
);

test.skipIf(engineObstacle)("a shim that is killed takes its sandbox along, and no other", async () => {
  const { host: at, witness: heard } = await begin();
  const [victim, other] = [await at.run("victim", sleeping), await at.run("other", sleeping)];
  const { State } = await at.docker.getContainer(present(victim.status).containerId).inspect();
  process.kill(parentOf(State.Pid), "SIGKILL");
  const failed = await at.until("victim", isIn(SandboxState.FAILED));
  expect(whereIs(failed).reason).toBe("SIGNALED");
  expect(failed.status?.transition?.message).not.toBe("");
  await eventually(
    "the end of its processes",
    () => stateOf(State.Pid),
    (state) => state === undefined || state === "Z",
  );
  expect(await at.get("other")).toEqual(other);
  await at.sandboxes.deleteSandbox({ sandboxId: "victim" });
  await at.run("victim", sleeping);
  await heard.check(at);
});

/** As in proc(5), "Z" for a process that has ended and that nobody asked for; undefined for one that is not there. */
function stateOf(pid: number): string | undefined {
  if (!existsSync(`/proc/${pid}/stat`)) return undefined;
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2)[0];
}

/** The shim, of the process that a container began with. */
function parentOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  if (!readFileSync(`/proc/${parent}/comm`, "latin1").startsWith("containerd-shim"))
    throw new Error(`process ${parent} is no shim`);
  return parent;
}
