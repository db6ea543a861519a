import { describe, expect, test } from "vitest";
import { runHere } from "../../../src/network/program.ts";
import { createShaper } from "../../../src/network/shaping.ts";
import { createLog } from "../../../src/observe/log.ts";

const log = createLog({ level: "fatal" });
const shape = { bridge: "sbx0123abcd", mac: "06:73:0a:64:00:02", limits: {}, peers: false };

describe("shaping", () => {
  test("touches nothing for a process that has ended, and nothing in the daemon's own namespace", async () => {
    const asked: string[] = [];
    const shaper = createShaper({
      log,
      run: async ([program = ""]) => {
        asked.push(program);
        return "[]";
      },
    });
    // above the most that the kernel gives out
    await shaper.apply({ ...shape, pid: 2 ** 22 + 1 });
    await expect(shaper.apply({ ...shape, pid: process.pid })).rejects.toThrow("namespace of the daemon");
    expect(asked).toEqual([]);
  });
});

describe("a program of the host", () => {
  test("prints what it makes of its input", async () => {
    expect(await runHere(["cat", "-"], "one\ntwo\n")).toBe("one\ntwo\n");
  });

  test("is told by name where it is not there, and by its words where it fails", async () => {
    await expect(runHere(["no-such-program"])).rejects.toThrow("no-such-program: is not on this host");
    await expect(runHere(["sh", "-c", "echo 'so  it\n is' >&2; exit 3"])).rejects.toThrow("sh: so it is");
    await expect(runHere(["false"], "x".repeat(1_000_000))).rejects.toThrow("false: ");
  });
});
