import { readdirSync, readFileSync } from "node:fs";
import { getPriority } from "node:os";
import { describe, expect, test } from "vitest";
import { engineObstacle } from "../harness/engine.ts";
import { present, sleeping, startHost } from "../harness/sandboxes.ts";

/** The right to a higher priority than that of whoever starts the daemon. */
const isAllowed = process.getuid?.() === 0;

describe.skipIf(engineObstacle !== undefined)(`priority (${engineObstacle ?? "engine"})`, () => {
  test.skipIf(!isAllowed)(
    "the daemon comes first; its programs and sandboxes come with all others",
    async () => {
      const host = await startHost();
      try {
        const { status } = await host.run("usual", sleeping);
        const { State } = await host.docker.getContainer(present(status).containerId).inspect();
        const pid = present(host.daemon.pid());
        const threads = readdirSync(`/proc/${pid}/task`).map(Number);
        expect(threads.map(getPriority), "those of the collector, too").toEqual(threads.map(() => -5));
        expect(getPriority(State.Pid)).toBe(0);
        const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
          readFileSync(`/proc/${pid}/task/${task}/children`, "latin1").split(" ").filter(Boolean),
        );
        expect(children.map(Number).map(getPriority)).toEqual(children.map(() => 0));
      } finally {
        await host.daemon.cleanup();
      }
    },
  );
});
