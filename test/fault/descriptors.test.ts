// A daemon that has no file descriptor left: what needs one fails, what needs none goes on, and once there are some again it is
// as before. Nobody starts it again if it ends, so each answer shows that it did not.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HostConditionType } from "../../gen/sandboxd/v1/host_pb.ts";
import { SandboxState } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { type EventWitness, witnessEvents } from "../harness/events.ts";
import {
  eventually,
  isIn,
  present,
  refusalOf,
  sleeping,
  specOf,
  startHost,
  type TestHost,
  tenant,
} from "../harness/sandboxes.ts";

const shortMs = 5_000;
const enough = 1_024;

describe.skipIf(engineObstacle !== undefined)(
  `a daemon with no file descriptor (${engineObstacle ?? "engine"})`,
  () => {
    let witness: EventWitness;
    let host: TestHost;
    /** Holds how many a daemon has that is started. */
    let limit: string;
    beforeAll(async () => {
      witness = await witnessEvents();
      limit = join(mkdtempSync(join(tmpdir(), "descriptors-")), "limit");
      writeFileSync(limit, String(enough));
      host = await startHost({
        launcher: ["sh", "-c", 'ulimit -n "$(cat "$0")"; exec "$@"', limit],
        config: { engine: { relist_period: "1s" }, ...witness.config },
      });
    });
    afterAll(async () => {
      await host?.daemon.cleanup();
      await witness?.close();
      rmSync(dirname(limit), { recursive: true, force: true });
    });

    const pid = () => present(host.daemon.pid());
    const allow = (count: number) =>
      execFileSync("prlimit", ["--pid", String(pid()), `--nofile=${count}:${enough}`]);
    const inUse = () => readdirSync(`/proc/${pid()}/fd`).length;

    /** A call on a connection of its own. */
    async function stranger(): Promise<unknown> {
      const sessions = new Http2SessionManager("http://sandboxd", undefined, {
        createConnection: () => connect(host.daemon.socketPath),
      });
      const transport = createGrpcTransport({ baseUrl: "http://sandboxd", sessionManager: sessions });
      try {
        return await createClient(SandboxService, transport).listSandboxes({}, { timeoutMs: 2_000 });
      } finally {
        sessions.abort();
      }
    }

    test.each([0, 3])(
      "but %d left: what runs and what is asked for is not lost, and all comes about once there are more",
      async (spare) => {
        const [runs, stops, ends, created] = [
          `runs-${spare}`,
          `stops-${spare}`,
          `ends-${spare}`,
          `created-${spare}`,
        ];
        const before = await host.run(runs, sleeping);
        await host.run(stops, sleeping);
        await host.run(ends, "sleep 3; exit 3");
        const request = { sandboxId: created, tenant, spec: specOf(sleeping) };
        const crowd: Socket[] = [];
        allow(inUse() + spare);
        try {
          const isFull = async () => {
            for (let one = 0; one < 20; one += 1)
              crowd.push(connect(host.daemon.socketPath).on("error", () => {}));
            await sleep(200);
            return stranger().then(
              () => false,
              () => true,
            );
          };
          // some that were in use a moment ago may not be any more
          await eventually("none is left for another connection", isFull, (full) => full, 5_000);
          const verbs = Promise.allSettled([
            host.sandboxes.createSandbox(request, { timeoutMs: shortMs }),
            host.sandboxes.stopSandbox({ sandboxId: stops }, { timeoutMs: shortMs }),
          ]);
          const end = performance.now() + shortMs + 1_000;
          while (performance.now() < end) {
            expect(await host.get(runs)).toEqual(before);
            await host.sandboxes.getSandboxStats({ sandboxId: runs });
            await sleep(200);
          }
          for (const told of await verbs) {
            if (told.status === "fulfilled") continue;
            const { code } = await refusalOf(Promise.reject(told.reason));
            expect(["DeadlineExceeded", "Unavailable"]).toContain(code);
          }
        } finally {
          for (const socket of crowd) socket.destroy();
          allow(enough);
        }

        await eventually("a call on a new connection", stranger, () => true, 5_000);
        expect(await host.get(runs)).toEqual(before);
        // it was accepted, or refused because the engine could not be reached
        const again = present((await host.sandboxes.createSandbox(request)).sandbox);
        expect(again.status?.state).toBe(SandboxState.RUNNING);
        await host.until(stops, isIn(SandboxState.STOPPED));
        const ended = await host.until(ends, isIn(SandboxState.FAILED));
        expect(ended.status?.exit?.code).toBe(3);
        const { sandboxes } = await host.sandboxes.listSandboxes({});
        await Promise.all(sandboxes.map(({ sandboxId }) => host.sandboxes.deleteSandbox({ sandboxId })));
        expect(await host.containers()).toEqual([]);
        await witness.check(host);
      },
    );

    test("but too few at its start: it serves, and says what it lacks, until it is started with more", async () => {
      const ids = ["one", "two", "three"];
      const before = await Promise.all(ids.map((id) => host.run(id, sleeping)));
      await host.daemon.stop();
      // enough to serve, and not for the accounts of all sandboxes
      writeFileSync(limit, "66");
      await host.daemon.start();
      const told = await eventually(
        "the condition",
        async () => present((await host.host.getHost({})).host).conditions.filter(({ active }) => active),
        (found) => found.some(({ type }) => type === HostConditionType.ENGINE_ABSENT),
      );
      expect(told[0]?.hint).toContain("LimitNOFILE");
      await sleep(3_000);
      expect(await Promise.all(ids.map(host.get))).toEqual(before);
      writeFileSync(limit, String(enough));
      await host.daemon.restart();
      const statistics = () =>
        Promise.all(ids.map((sandboxId) => host.sandboxes.getSandboxStats({ sandboxId })));
      await eventually("statistics of all", statistics, () => true, 10_000);
      expect(await Promise.all(ids.map(host.get))).toEqual(before);
      const four = () => host.run("four", sleeping);
      await eventually("a create", four, isIn(SandboxState.RUNNING), 5_000);
      await witness.check(host);
    });
  },
);
