import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { createNotifier } from "../../../src/observe/notifier.ts";

/** A notifier whose program writes down, in order, what it was started with. */
function recorded(env: Readonly<Record<string, string>>, script = 'echo "$NOTIFY_SOCKET $*" >>"$0.told"') {
  const directory = mkdtempSync(join(tmpdir(), "notifier-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const program = join(directory, "notify");
  writeFileSync(program, `#!/bin/sh\n${script}\n`);
  chmodSync(program, 0o755);
  const onError = vi.fn();
  const notifier = createNotifier({ env: { PATH: process.env["PATH"], ...env }, onError, program });
  const told = () =>
    existsSync(`${program}.told`) ? readFileSync(`${program}.told`, "utf8").trim().split("\n") : [];
  return { notifier, told, onError };
}

const managed = { NOTIFY_SOCKET: "/run/notify", WATCHDOG_USEC: "40000" };

test("a process that no service manager started tells nobody", async () => {
  const { notifier, told } = recorded({ WATCHDOG_USEC: "20000" });
  const end = notifier.watch(() => true);
  await notifier.ready("serving");
  await new Promise((resolve) => setTimeout(resolve, 60));
  end();
  expect(told()).toEqual([]);
});

test("states are told in their order, however long each message takes", async () => {
  const slowFirst = 'case "$*" in READY*) sleep 0.2;; esac; echo "$NOTIFY_SOCKET $*" >>"$0.told"';
  const { notifier, told } = recorded(managed, slowFirst);
  await Promise.all([notifier.ready("serving"), notifier.reloading(), notifier.stopping()]);
  expect(told()).toEqual([
    "/run/notify READY=1 STATUS=serving",
    expect.stringMatching(/^\/run\/notify RELOADING=1 MONOTONIC_USEC=\d+$/),
    "/run/notify STOPPING=1 STATUS=stopping; sandboxes keep running",
  ]);
});

test("the watchdog is told that all is well for as long as it is, and no longer", async () => {
  const { notifier, told } = recorded(managed);
  let isWell = true;
  onTestFinished(notifier.watch(() => isWell));
  await vi.waitFor(() => expect(told().length).toBeGreaterThan(2));
  expect(new Set(told())).toEqual(new Set(["/run/notify WATCHDOG=1"]));
  isWell = false;
  await notifier.ready("what was on its way has arrived");
  const count = told().length;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(told()).toHaveLength(count);
});

test("nothing is told to the watchdog where none was set", async () => {
  const { notifier, told } = recorded({ NOTIFY_SOCKET: "/run/notify" });
  onTestFinished(notifier.watch(() => true));
  await notifier.ready("serving");
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(told()).toHaveLength(1);
});

test("a message that cannot be sent is reported, and the next one is tried", async () => {
  const { notifier, told, onError } = recorded(managed, '[ "$1" != READY=1 ] && echo "$*" >>"$0.told"');
  await notifier.ready("serving");
  await notifier.stopping();
  expect(onError).toHaveBeenCalledOnce();
  expect(told()).toHaveLength(1);
});

test("neither does one for which no process can be tried keep back the next", async () => {
  const { notifier, told, onError } = recorded(managed);
  await notifier.ready("never \0 started");
  await notifier.stopping();
  expect(onError).toHaveBeenCalledOnce();
  expect(told()).toHaveLength(1);
});
