// The dev scheduler as a command, with a host that talks to it.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { runDevScheduler } from "../../src/dev-scheduler/run.ts";
import { createFakeSource, silentLog } from "../unit/scheduler/fixture.ts";
import { closeAll, closeLater, until, uplinkOf } from "./uplink-fixture.ts";

afterEach(closeAll);

/** The command in this process: what it printed, and how to end it. */
function commandOf(options: { readonly json: boolean; readonly tty?: boolean; readonly store?: string }) {
  let printed = "";
  const stdout = new Writable({
    write(chunk, _encoding, done) {
      printed += String(chunk);
      done();
    },
  });
  const screen = Object.assign(stdout, { isTTY: options.tty ?? false, rows: 24, columns: 120 });
  const stop = new AbortController();
  const { json, store } = options;
  const ended = runDevScheduler({
    listen: "127.0.0.1:0",
    json,
    ...(store === undefined ? {} : { store }),
    stdout: screen as unknown as NodeJS.WriteStream,
    log: silentLog,
    signal: stop.signal,
  });
  closeLater(async () => {
    stop.abort();
    await ended;
  });
  const url = async () => {
    await until(() => expect(printed).toMatch(/http:\/\/[0-9.:]+/));
    return /http:\/\/[0-9.:]+\d/.exec(printed)?.[0] ?? "";
  };
  return { printed: () => printed, url, stop: () => stop.abort(), ended };
}

describe("sandboxd dev-scheduler", () => {
  test("prints one line per change where there is no terminal, and ends with 0", async () => {
    const command = commandOf({ json: false });
    const source = createFakeSource();
    source.append(3);
    const uplink = uplinkOf({ source, endpoints: [await command.url()] });
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(3));
    await uplink.close();
    await until(() => expect(command.printed()).toContain("disconnected"));
    command.stop();
    expect(await command.ended).toBe(0);
    const lines = command.printed().trimEnd().split("\n");
    expect(lines[1]).toBe("host-1 connected: session-1, epoch epoch-1");
    expect(lines.filter((line) => /^host-1 #\d /.test(line)).length).toBe(3);
    expect(lines.at(-1)).toBe("host-1 disconnected: The daemon stops; its sandboxes keep running.");
  });

  test("prints one JSON object a line with --json", async () => {
    const command = commandOf({ json: true });
    const source = createFakeSource();
    source.append(3);
    uplinkOf({ source, endpoints: [await command.url()] });
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(3));
    const kinds = command
      .printed()
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { kind: string }).kind);
    expect(kinds.slice(0, 3)).toEqual(["listening", "connected", "snapshot"]);
    expect(kinds.filter((kind) => kind === "event").length).toBe(3);
  });

  test("draws a table on a terminal", async () => {
    const command = commandOf({ json: false, tty: true });
    uplinkOf({ source: createFakeSource(), endpoints: [await command.url()] });
    await until(() => expect(command.printed()).toMatch(/host-1 +connected/));
    expect(command.printed().startsWith("\x1b[H")).toBe(true);
  });

  test("remembers what it acknowledged in a file, so that a restart asks for nothing twice", async () => {
    const directory = mkdtempSync(join(tmpdir(), "dev-scheduler-"));
    closeLater(() => rmSync(directory, { recursive: true }));
    const store = join(directory, "acks.jsonl");
    const first = commandOf({ json: false, store });
    const source = createFakeSource();
    source.append(3);
    const before = uplinkOf({ source, endpoints: [await first.url()] });
    await until(() => expect(source.lastAcknowledgedSequence()).toBe(3));
    await before.close();
    first.stop();
    await first.ended;
    const second = commandOf({ json: false, store });
    // the same host and epoch, restored from before the acknowledgement
    const restored = createFakeSource();
    restored.append(3);
    uplinkOf({ source: restored, endpoints: [await second.url()] });
    await until(() => expect(restored.lastAcknowledgedSequence()).toBe(3));
    expect(second.printed()).not.toContain("#1");
  });

  test("says what is wrong with an address", async () => {
    const options = { json: false, stdout: process.stdout, log: silentLog };
    await expect(runDevScheduler({ ...options, listen: "7071" })).rejects.toThrow("127.0.0.1:7071");
  });
});
