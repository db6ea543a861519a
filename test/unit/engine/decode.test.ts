import { expect, test } from "vitest";
import { containerOf, stateOf } from "../../../src/engine/decode.ts";
import { inspected, plan } from "./plan.ts";

test.each([
  ["created", "created"],
  ["running", "running"],
  ["restarting", "running"],
  ["paused", "paused"],
  ["exited", "exited"],
  ["dead", "exited"],
  ["removing", "exited"],
])("the engine's %s counts as %s", (state, expected) => {
  expect(stateOf(state)).toBe(expected);
});

test("what the engine showed of a container is told in the plan's own words", () => {
  const info = inspected();
  const container = containerOf(info);
  expect(container).toMatchObject({
    id: info.Id,
    name: plan.name,
    imageId: plan.imageId,
    labels: plan.labels,
    limits: {
      cpuMillis: plan.limits.cpuMillis,
      cpuWeight: plan.limits.cpuWeight,
      memoryBytes: plan.limits.memoryBytes,
      pids: plan.limits.pids,
    },
  });
});

test("times that never were are empty, others are the engine's own text", () => {
  const info = inspected();
  info.State.StartedAt = "0001-01-01T00:00:00Z";
  info.State.FinishedAt = "2026-01-01T10:00:00.123456789Z";
  expect(containerOf(info)).toMatchObject({ startedAt: "", finishedAt: "2026-01-01T10:00:00.123456789Z" });
});

test("how a container ended is told as the engine shows it", () => {
  const info = inspected();
  info.State = { ...info.State, Status: "exited", Pid: 0, ExitCode: 137, OOMKilled: true, Error: "why" };
  expect(containerOf(info)).toMatchObject({
    state: "exited",
    pid: 0,
    exitCode: 137,
    oomKilled: true,
    error: "why",
  });
});

test("a container without labels and limits has none, not undefined ones", () => {
  const info = inspected();
  info.Config.Labels = null as unknown as Record<string, string>;
  info.HostConfig = {};
  expect(containerOf(info)).toMatchObject({
    labels: {},
    limits: { cpuMillis: 0, cpuWeight: 0, memoryBytes: 0, pids: 0 },
  });
});
