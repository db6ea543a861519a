// What it costs to decide on one create where there are many: the effective spec, the tenant's limit range, its quota and the host.
// Without the engine, and without what is written when it is admitted.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadConfig } from "../src/config/load.ts";
import { tenantRulesOf } from "../src/daemon-config.ts";
import { readCapacity } from "../src/host/capacity.ts";
import { noNetwork } from "../src/network/policy.ts";
import { createLog } from "../src/observe/log.ts";
import { createRepository } from "../src/sandbox/repository.ts";
import { createRoom } from "../src/sandbox/room.ts";
import { effectiveSpec, type SpecRequest } from "../src/sandbox/spec.ts";
import { openStore } from "../src/store/store.ts";
import { noRange } from "../src/tenant/limit-range.ts";
import { createTenants } from "../src/tenant/tenants.ts";
import { createWorkspaceRepository } from "../src/workspace/repository.ts";
import { type Result, resultOf } from "./result.ts";

const sandboxCount = 1_000;
const tenantCount = 200;
const mebibyte = 2 ** 20;

const request: SpecRequest = {
  template: "",
  image: "busybox",
  command: ["sleep", "1000"],
  args: [],
  env: {},
  workingDir: "",
  labels: {},
  resources: { cpuMillis: 10, memoryBytes: 6 * mebibyte, pids: 4 },
};

/** Measures the decision on a create, tenant after tenant. */
export async function measureAdmission(runs: number): Promise<Result> {
  const directory = mkdtempSync(join(tmpdir(), "admission-"));
  const loaded = loadConfig({ env: {}, flags: [], dev: true });
  if ("errors" in loaded) throw new Error("the usual configuration is not valid");
  const { config } = loaded;
  const store = openStore({ directory, eventRetention: { count: 10_000, ageMs: 3_600_000 } });
  const repository = createRepository(store);
  const tenants = createTenants({
    store,
    repository,
    rules: () => tenantRulesOf(config),
    hold: async () => undefined,
    deleteSandbox: () => undefined,
    workspaces: createWorkspaceRepository(store),
    deleteWorkspace: () => undefined,
    log: createLog({ level: "fatal" }),
  });
  try {
    const names = Array.from({ length: tenantCount }, (_, index) => `tenant-${index}`);
    for (const name of names) {
      const quota = { sandboxes: 100, cpuMillis: 10_000, memoryBytes: 1_024 * mebibyte, pids: 1_000 };
      await tenants.put(name, {
        quota,
        limitRange: { ...noRange, max: { pids: 100 } },
        network: noNetwork,
      });
    }
    const specFor = (tenant: string) =>
      effectiveSpec(request, config, { tenant, ...tenants.policyOf(tenant) });
    for (let index = 0; index < sandboxCount; index += 1) {
      const tenant = names[index % tenantCount] ?? "";
      repository.insert({
        id: `sandbox-${index}`,
        instance: `instance-${index}`,
        tenant,
        uid: tenants.ensure(tenant).uid,
        isInTenantCgroup: true,
        spec: specFor(tenant),
        requestHash: "",
        generation: 1,
        createdAtMs: 0,
        wanted: "RUNNING",
        state: "RUNNING",
        transition: {
          from: "CREATING",
          to: "RUNNING",
          reason: "PROGRESS",
          message: "",
          actor: { kind: "POLICY", identity: "" },
          timeMs: 0,
        },
        stopGraceMs: 0,
        containerId: "",
        imageId: "",
        imageVolumes: [],
        endedRun: "",
        bootId: "",
      });
    }
    const machine = readCapacity(config.capacity);
    // there is room, on whatever machine this is, so that all is looked at
    const amounts = { cpuMillis: 1e6, memoryBytes: 2 ** 50, pids: 1e6, sandboxes: 10_000 };
    const room = createRoom({
      repository,
      capacity: { ...machine, capacity: amounts, allocatable: amounts },
      workspaces: () => [],
      quotaOf: (tenant) => tenants.policyOf(tenant).quota,
    });
    const decide = (index: number) => {
      const tenant = names[index % tenantCount] ?? "";
      const began = performance.now();
      tenants.assertOpen(tenant);
      room.admitNew(tenant, specFor(tenant));
      return performance.now() - began;
    };
    const values = Array.from({ length: runs }, (_, index) => decide(index));
    return resultOf({ name: "admission", unit: "ms", values, goal: { of: "p50", atMost: 1 } });
  } finally {
    tenants.close();
    store.close();
    rmSync(directory, { recursive: true });
  }
}
