import { expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import { changesBetween, reloaded } from "../../../src/config/reload.ts";

function load(...flags: readonly string[]) {
  const loaded = loadConfig({ env: {}, flags, dev: false });
  if ("errors" in loaded) throw new Error(JSON.stringify(loaded.errors));
  return loaded;
}

test("each key that differs is told with both values, and whether it needs a restart", () => {
  const before = load("images.allow=busybox:1", "sampling.period=1s");
  const after = load("images.allow=busybox:1,alpine:3", "sampling.period=2s", "host.id=one");
  expect(changesBetween(before.settings, after.settings)).toEqual([
    { key: "host.id", before: undefined, after: '"one"', needsRestart: true },
    { key: "images.allow", before: '["busybox:1"]', after: '["busybox:1", "alpine:3"]', needsRestart: false },
    { key: "sampling.period", before: '"1s"', after: '"2s"', needsRestart: true },
  ]);
  expect(changesBetween(after.settings, after.settings)).toEqual([]);
});

test("a template that came or went is a change of its keys, which need no restart", () => {
  const changes = changesBetween(load().settings, load("templates.shell.image=busybox:1").settings);
  expect(changes).toContainEqual({
    key: "templates.shell.image",
    before: undefined,
    after: '"busybox:1"',
    needsRestart: false,
  });
  expect(changes.every(({ needsRestart }) => !needsRestart)).toBe(true);
});

test("what needs a restart stays as it runs; the rest is as it was read", () => {
  const running = load("capacity.cpu_overcommit=2").config;
  const read = load(
    ...["capacity.cpu_overcommit=3", "images.pull=never", "images.allow=busybox:1", "defaults.pids=77"],
    ...["limits.max.pids=99", "templates.shell.image=busybox:1"],
    ...["network.allow_private=10.1.0.0/16", "network.resolvers=10.0.0.53", "network.subnet_prefix=24"],
    "proxies.web.address=10.0.0.5:3128",
  ).config;
  expect(reloaded(running, read)).toEqual({
    ...running,
    images: { allow: ["busybox:1"], pull: "missing" },
    defaults: read.defaults,
    limits: read.limits,
    templates: read.templates,
    network: { ...running.network, allowPrivate: ["10.1.0.0/16"], resolvers: ["10.0.0.53"] },
    proxies: { web: { address: { address: "10.0.0.5", port: 3128 }, noProxy: [] } },
  });
  expect(reloaded(running, read).network.subnetPrefix).toBe(25);
  expect(reloaded(running, read).capacity.cpuOvercommit).toBe(2);
});
