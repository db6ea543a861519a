// What lasts on a whole host when the daemon, the engine or the machine ends under running sandboxes.

import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Event } from "../../gen/sandboxd/v1/event_pb.ts";
import { ActorKind, type Sandbox, SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { type GuestHost, guestPatienceMs, isGuestMissing, startGuestHost } from "../harness/guest.ts";
import { eventually, isIn, present, sleeping, whereIs } from "../harness/sandboxes.ts";

const busy = "while :; do :; done";

describe.skipIf(isGuestMissing)("on a whole host, sandboxes", () => {
  let host: GuestHost;
  beforeAll(async () => {
    host = await startGuestHost();
  });
  afterAll(() => host?.close());
  afterEach(async () => {
    const { sandboxes } = await host.sandboxes.listSandboxes({});
    await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
  });

  /** The main process in the guest, and since when it runs: another process has another pair. */
  async function processOf({ status }: Sandbox): Promise<string> {
    const { State } = await host.docker.getContainer(present(status).containerId).inspect();
    expect(State.Running).toBe(true);
    const stat = await host.guest.run(`cat /proc/${State.Pid}/stat`);
    return `${State.Pid} since ${stat.slice(stat.lastIndexOf(")")).split(" ")[20]}`;
  }

  const cpuOf = async (sandboxId: string) =>
    present((await host.sandboxes.getSandboxStats({ sandboxId })).stats).cpuUsageUsec;

  /** All events, which must be numbered from 1 without a gap. */
  async function allEvents(): Promise<readonly Event[]> {
    const { events } = await host.events.listEvents({ pageSize: 1000 });
    expect(events.map(({ sequence }) => Number(sequence))).toEqual(events.map((_, index) => index + 1));
    return events;
  }

  const statesTold = (events: readonly Event[], id: string) =>
    events
      .filter(({ sandboxId }) => sandboxId === id)
      .map(({ sandbox }) => Object.values(whereIs(present(sandbox))).join(" "));

  /** Runs two sandboxes, lets something happen to the host, and expects that nothing happened to them. */
  async function expectUnharmed(what: () => Promise<void>): Promise<void> {
    const before = [await host.run("busy", busy), await host.run("quiet", sleeping)];
    const processes = await Promise.all(before.map(processOf));
    const told = await allEvents();
    await eventually(
      "figures",
      () => cpuOf("busy"),
      (usage) => usage > 0n,
      guestPatienceMs,
    );
    await what();
    const accepting = async () => (await host.host.getHost({})).host?.accepting;
    await eventually("an accepting host", accepting, (isSo) => isSo === true, guestPatienceMs);
    const later = await cpuOf("busy");
    await eventually(
      "more figures",
      () => cpuOf("busy"),
      (usage) => usage > later,
      guestPatienceMs,
    );
    expect(later, "figures go on from where they were").toBeGreaterThan(0n);
    for (const [index, sandbox] of before.entries()) {
      expect((await host.get(sandbox.sandboxId)).status).toEqual(sandbox.status);
      expect(await processOf(sandbox)).toBe(processes[index]);
    }
    const sandboxEvents = (events: readonly Event[]) => events.filter(({ sandboxId }) => sandboxId !== "");
    expect(sandboxEvents(await allEvents())).toEqual(sandboxEvents(told));
  }

  /** What happens to a sandbox behind the daemon is seen sooner than by comparing with the engine. */
  async function expectEventsAreHeard(): Promise<void> {
    await host.docker.getContainer(present((await host.get("quiet")).status).containerId).kill();
    const killed = await host.until("quiet", isIn(SandboxState.FAILED));
    // who sent the signal is known only from the engine's events
    expect(whereIs(killed).reason).toBe("EXTERNAL");
    expect(killed.status?.transition?.actor?.kind).toBe(ActorKind.EXTERNAL);
  }

  test("outlive a daemon that is killed; the next one adopts the same processes and goes on measuring", async () => {
    await expectUnharmed(async () => {
      await host.daemon.kill();
      await host.daemon.start();
    });
    await expectEventsAreHeard();
  });

  test("outlive an engine that is restarted with live-restore; the daemon recovers and hears its events", async () => {
    await expectUnharmed(async () => {
      await host.guest.run("systemctl restart docker");
    });
    await expectEventsAreHeard();
  });

  test("outlive an engine that is killed; the daemon recovers and hears its events", async () => {
    await expectUnharmed(async () => {
      const pid = () => host.guest.run("systemctl show --property=MainPID --value docker");
      const before = await pid();
      await host.guest.run("systemctl kill --signal=KILL docker");
      await eventually("another engine", pid, (now) => Number(now) > 0 && now !== before, guestPatienceMs);
    });
    await expectEventsAreHeard();
  });

  test.each([
    ["crashed", "crash"],
    ["was rebooted", "reboot"],
  ] as const)("are stopped, told once as such, and can be started after the machine %s", async (_, how) => {
    await host.run("one", busy);
    await host.run("two", sleeping);
    await host.run("ended", "exit 3");
    await host.until("ended", isIn(SandboxState.FAILED));
    const before = await allEvents();
    const bootId = (await host.host.getHost({})).host?.bootId;

    if (how === "reboot") {
      await host.guest.reboot();
    } else {
      await host.guest.crash();
      await host.guest.boot();
    }
    expect((await host.guest.run("systemctl is-active sandboxd")).trim(), "by itself").toBe("active");
    for (const id of ["one", "two"]) {
      const stopped = await host.until(id, isIn(SandboxState.STOPPED));
      expect(whereIs(stopped).reason).toBe("HOST_REBOOT");
    }
    expect(whereIs(await host.get("ended")).reason, "it had ended before").toBe("EXITED");
    const { host: facts } = await host.host.getHost({});
    expect(facts?.bootId).not.toBe(bootId);
    expect(facts?.allocated?.sandboxes).toBe(0n);

    const after = await allEvents();
    expect(after.slice(0, before.length), "what was told stays told").toEqual(before);
    for (const id of ["one", "two"]) {
      expect(statesTold(after, id)).toEqual([...statesTold(before, id), "STOPPED HOST_REBOOT"]);
    }
    const { sandbox } = await host.sandboxes.startSandbox({ sandboxId: "one" });
    expect(whereIs(present(sandbox)).state).toBe("RUNNING");
  });
});
