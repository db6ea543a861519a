// That CheckHost sees the host that it is on, and says what it cannot see.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CheckVerdict } from "../../gen/sandboxd/v1/host_pb.ts";
import { engineObstacle } from "../harness/engine.ts";
import { startHost, type TestHost } from "../harness/sandboxes.ts";

let host: TestHost;

const checks = async () => (await host.host.checkHost({})).checks;

describe.skipIf(engineObstacle !== undefined)(`a host (${engineObstacle ?? "engine"})`, () => {
  beforeEach(async () => {
    host = await startHost();
  });
  afterEach(() => host?.daemon.cleanup());

  test("is examined as it is: nothing that is promised is missing on this one", async () => {
    const { verdict, checks: found } = await host.host.checkHost({});
    const { Components: components } = (await host.docker.version()) as unknown as {
      readonly Components: readonly { readonly Name: string; readonly Version: string }[];
    };
    const of = (name: string) => found.find((one) => one.name === name);
    for (const [name, component] of [
      ["engine_version", "Engine"],
      ["containerd_version", "containerd"],
      ["runc_version", "runc"],
    ] as const) {
      const version = components.find((one) => one.Name === component)?.Version;
      expect(of(name)?.message.startsWith(`${version}`), name).toBe(true);
    }
    for (const name of [
      "limits",
      "seccomp",
      "init",
      "log_driver",
      "conditions",
      "tenant_cgroups",
      "workspaces",
      "backups",
      "descriptors",
      "toolbox",
      "http_probe",
    ]) {
      expect(of(name), name).toMatchObject({ verdict: CheckVerdict.OK, hint: "" });
    }
    // the tests' engines are started without it
    expect(of("live_restore")?.verdict).toBe(CheckVerdict.WARNING);
    expect(verdict).toBe(Math.max(...found.map((one) => one.verdict)));
    for (const one of found) expect(one.hint === "", one.name).toBe(one.verdict === CheckVerdict.OK);
    // whoever reads the log after a start finds it there
    expect(host.daemon.logs()).toContain("a restart of the engine stops every sandbox");
  });
});

test.skipIf(engineObstacle !== undefined)("an engine that is away is told, not an error", async () => {
  host = await startHost();
  try {
    const door = "/nowhere/docker.sock";
    host.daemon.configure({ engine: { socket: door } });
    await host.daemon.restart().catch(() => undefined);
    const found = await checks();
    expect(found.find(({ name }) => name === "engine")?.verdict).toBe(CheckVerdict.UNKNOWN);
    const absent = found.find(({ name }) => name === "engine_absent");
    expect(absent?.verdict).toBe(CheckVerdict.FAILED);
    expect(absent?.hint).not.toBe("");
    expect(found.some(({ name }) => name === "state_file_system")).toBe(true);
  } finally {
    await host.daemon.cleanup();
  }
});
