// What is followed goes on by itself when the engine is restarted, whose containers outlive it.

import { expect, test } from "vitest";
import { engineObstacle, ownEngine } from "../harness/engine.ts";
import { startHost } from "../harness/sandboxes.ts";

test.skipIf(engineObstacle !== undefined)(
  "a reader sees every line once while the engine is killed, and is restarted",
  async () => {
    const engine = await ownEngine({ liveRestore: true });
    const host = await startHost({ engine: engine.socket });
    try {
      const lines = 400;
      await host.run("ticking", `i=0; while [ $i -lt ${lines} ]; do i=$((i+1)); echo $i; sleep 0.01; done`);
      const seen: number[] = [];
      const following = (async () => {
        for await (const { data, gap } of host.sandboxes.streamLogs({ sandboxId: "ticking", follow: true })) {
          expect(gap).toBeUndefined();
          seen.push(Number(Buffer.from(data).toString()));
          if (seen.at(-1) === lines) break;
        }
      })();
      await expect.poll(() => seen.length).toBeGreaterThan(20);
      await engine.kill();
      await engine.restart();
      await following;
      expect(seen).toEqual(Array.from({ length: lines }, (_, index) => index + 1));
    } finally {
      // its volumes cannot be removed: an engine that was restarted takes those of its containers for mounted
      await engine.stop().finally(() => host.daemon.stop());
    }
  },
);
