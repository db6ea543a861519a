// npm start -- --demo: drives one sandbox through its life and says what happens. Every step checks what it shows, so
// that the demonstration fails when the daemon does not do what it should.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

/** Longest that any one call may take. */
const timeoutMs = 30_000;

const mebibyte = 1024n * 1024n;

/**
 * Runs the demonstration with a client from lib/client.mjs, and a `say` that prints a line. Removes its sandbox also
 * when a step fails.
 */
export async function demonstrate({ sandboxes, events, host, names }, say) {
  const call = { timeoutMs };
  const sandboxId = "demo";
  const step = (title, text) => say(`${title.padEnd(8)} ${text}`);
  const stateOf = (sandbox) => names.state(sandbox.status.state).toLowerCase();

  const { host: found } = await host.getHost({}, call);
  step("host", `${found.hostId}`);
  try {
    const { sandbox: created } = await sandboxes.createSandbox(
      {
        sandboxId,
        tenant: "demo",
        spec: {
          template: "shell",
          command: ["sh", "-c", 'echo "hello from $(id -u):$(id -g)"; while :; do :; done'],
          resources: { cpuMillis: 500n, memoryBytes: 64n * mebibyte, pids: 32n },
        },
      },
      call,
    );
    step("create", `${created.sandboxId} is ${stateOf(created)}, as user ${created.status.uid}`);
    assert.equal(stateOf(created), "running");

    const { sandbox: again } = await sandboxes.getSandbox({ sandboxId }, call);
    step("get", `generation ${again.generation}, container ${again.status.containerId.slice(0, 12)}`);

    const log = await firstLogLine(sandboxes, sandboxId);
    step("logs", log);
    assert.match(log, /^hello from \d{5,}:\d{5,}$/);

    // Two samples at least, for a rate.
    await sleep(3_000);
    const { stats } = await sandboxes.getSandboxStats({ sandboxId }, call);
    const memory = `${stats.memoryUsageBytes / 1024n} of ${stats.memoryLimitBytes / 1024n} KiB`;
    step(
      "stats",
      `${stats.cpuUsageMillis} of 500 CPU millis, ${memory}, ${stats.pids} of ${stats.pidsLimit} processes`,
    );
    assert.ok(stats.cpuUsageMillis <= 600n, "a busy loop got more than its CPU limit");
    assert.equal(stats.memoryLimitBytes, 64n * mebibyte);

    const { sandbox: updated } = await sandboxes.updateSandbox(
      {
        sandboxId,
        resources: { memoryBytes: 96n * mebibyte },
        updateMask: { paths: ["resources.memory_bytes"] },
      },
      call,
    );
    step("update", `memory limit is ${updated.spec.resources.memoryBytes / mebibyte} MiB, without a restart`);
    assert.equal(updated.spec.resources.memoryBytes, 96n * mebibyte);

    const { sandbox: stopped } = await sandboxes.stopSandbox({ sandboxId, grace: { seconds: 1n } }, call);
    step("stop", `${sandboxId} is ${stateOf(stopped)}`);
    assert.equal(stateOf(stopped), "stopped");

    const { sandbox: restarted } = await sandboxes.startSandbox({ sandboxId }, call);
    step("start", `${sandboxId} is ${stateOf(restarted)}`);
    assert.equal(stateOf(restarted), "running");
  } finally {
    await sandboxes.deleteSandbox({ sandboxId }, call);
    step("delete", `${sandboxId} is gone`);
  }

  const { events: told } = await events.listEvents({ filter: { sandboxId }, afterSequence: 0n }, call);
  for (const event of told) {
    const transition = event.sandbox?.status?.transition;
    const states = transition ? `${names.state(transition.from)} -> ${names.state(transition.to)}` : "";
    const reason = transition ? names.reason(transition.reason) : "";
    step(
      "event",
      `${event.sequence} ${names.eventType(event.type)} ${states} ${reason}`.trim().toLowerCase(),
    );
  }
  assert.ok(told.length > 0, "no event was told");
}

async function firstLogLine(sandboxes, sandboxId) {
  let text = "";
  for await (const { data } of sandboxes.streamLogs({ sandboxId, follow: true }, { timeoutMs })) {
    text += Buffer.from(data).toString();
    if (text.includes("\n")) break;
  }
  return text.split("\n")[0];
}
