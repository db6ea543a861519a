import { describe, expect, test } from "vitest";
import { SandboxdError } from "../../../src/errors.ts";
import {
  defaultEgress,
  type EgressPolicy,
  type NetworkMode,
  noNetwork,
  type TenantNetwork,
} from "../../../src/network/policy.ts";
import { changedNetwork, type NetworkChange } from "../../../src/sandbox/network-spec.ts";
import { effectiveSpec, hashOfRequest, isRepeated, type SpecRequest } from "../../../src/sandbox/spec.ts";
import { noRange } from "../../../src/tenant/limit-range.ts";
import { configOf } from "../config/fixture.ts";
import { recordOf } from "./fixture.ts";

const toml = `
  [network]
  allow_private = ["10.50.0.0/16"]
  [proxies.web]
  address = "10.0.0.5:3128"
  [templates.plain]
  image = "busybox"
  [templates.node]
  image = "busybox"
  network_mode = "egress"
  [templates.node.egress]
  scope = "listed"
  allow_domains = ["registry.npmjs.org"]
  [templates.node.network_limits]
  connections = 50
  [templates.cluster]
  image = "busybox"
  network_mode = "internal"
`;

const rules = () => configOf(toml);

const request: SpecRequest = {
  template: "plain",
  image: "",
  command: [],
  args: [],
  env: {},
  workingDir: "",
  labels: {},
  resources: {},
};

const everything: TenantNetwork = { ...noNetwork, modes: ["NONE", "INTERNAL", "EGRESS"] };
const listed = (change: Partial<EgressPolicy>): EgressPolicy => ({
  ...defaultEgress,
  scope: "LISTED",
  ...change,
});
const ofTemplate = listed({ allowDomains: ["registry.npmjs.org"] });

function specOf(asked: Partial<SpecRequest>, network: TenantNetwork = everything) {
  const spec = effectiveSpec({ ...request, ...asked }, rules(), {
    tenant: "acme",
    limitRange: noRange,
    network,
  });
  const { networkMode, egress, networkLimits } = spec;
  return { networkMode, egress, networkLimits };
}

/** The reason of a refusal, and the fields that it names. */
function refusal(action: () => unknown) {
  try {
    action();
    return undefined;
  } catch (error) {
    if (!(error instanceof SandboxdError)) throw error;
    return [error.reason, ...(error.details.fields ?? []).map(({ field }) => field)];
  }
}

describe("a sandbox's network is", () => {
  test("none, where neither the request nor its template asks for one, and nothing of it is kept", () => {
    const spec = effectiveSpec(request, rules(), { tenant: "acme", limitRange: noRange, network: noNetwork });
    expect(spec.networkMode).toBe("NONE");
    expect(Object.keys(spec)).not.toContain("egress");
    expect(Object.keys(spec)).not.toContain("networkLimits");
  });

  test("its template's, where the request does not say", () => {
    expect(specOf({ template: "node" })).toEqual({
      networkMode: "EGRESS",
      egress: ofTemplate,
      networkLimits: { connections: 50 },
    });
    expect(specOf({ template: "cluster" }).networkMode).toBe("INTERNAL");
  });

  test("the request's, each part as a whole", () => {
    const asked = { template: "node", egress: defaultEgress, networkLimits: { packetsPerSecond: 100 } };
    expect(specOf(asked)).toEqual({
      networkMode: "EGRESS",
      egress: defaultEgress,
      networkLimits: { packetsPerSecond: 100 },
    });
  });

  test("without what the template says of a mode that the request does not take", () => {
    expect(specOf({ template: "node", networkMode: "NONE" })).toEqual({ networkMode: "NONE" });
    expect(specOf({ template: "node", networkMode: "INTERNAL" })).toEqual({
      networkMode: "INTERNAL",
      networkLimits: { connections: 50 },
    });
  });

  test("without the template's destinations, where its tenant has a proxy", () => {
    expect(specOf({ template: "node" }, { ...everything, proxy: "web" })).toEqual({
      networkMode: "EGRESS",
      networkLimits: { connections: 50 },
    });
  });
});

describe("what is refused", () => {
  test.each<[string, Partial<SpecRequest>, readonly string[]]>([
    ["destinations without a network", { egress: defaultEgress }, ["INVALID_FIELD", "spec.egress"]],
    [
      "destinations of one that has no way out",
      { networkMode: "INTERNAL", egress: defaultEgress },
      ["INVALID_FIELD", "spec.egress"],
    ],
    ["bounds of no traffic", { networkLimits: { connections: 1 } }, ["INVALID_FIELD", "spec.network_limits"]],
    [
      "a block that is none, and a private one, both at once",
      { networkMode: "EGRESS", egress: listed({ allowCidrs: ["10.50.0.0/24", "10.51.0.0/24", "x"] }) },
      ["INVALID_FIELD", "spec.egress.allow_cidrs[1]", "spec.egress.allow_cidrs[2]"],
    ],
    [
      "a port that the tenant does not have",
      {
        networkMode: "EGRESS",
        egress: { ...defaultEgress, ports: [{ protocol: "TCP", first: 22, last: 22 }] },
      },
      ["NETWORK_NOT_ALLOWED", "spec.egress.ports[0]"],
    ],
  ])("%s", (_, asked, expected) => {
    expect(refusal(() => specOf(asked))).toEqual(expected);
  });

  test("a mode that the tenant does not have, also of a template", () => {
    const expected = ["NETWORK_NOT_ALLOWED", "spec.network_mode"];
    expect(refusal(() => specOf({ networkMode: "EGRESS" }, noNetwork))).toEqual(expected);
    expect(refusal(() => specOf({ template: "node" }, noNetwork))).toEqual(expected);
    expect(refusal(() => specOf({ template: "node", networkMode: "NONE" }, noNetwork))).toBeUndefined();
  });

  test("a template's policy that is wider than the tenant's", () => {
    const narrow = { ...everything, egress: listed({ allowDomains: ["example.com"] }) };
    expect(refusal(() => specOf({ template: "node" }, narrow))).toEqual([
      "NETWORK_NOT_ALLOWED",
      "spec.egress.allow_domains[0]",
    ]);
  });

  test("bounds above the tenant's, also of a template", () => {
    const bounded = { ...everything, limits: { connections: 10 } };
    const expected = ["NETWORK_NOT_ALLOWED", "spec.network_limits.connections"];
    expect(refusal(() => specOf({ template: "node" }, bounded))).toEqual(expected);
    expect(
      refusal(() => specOf({ template: "node", networkLimits: { connections: 10 } }, bounded)),
    ).toBeUndefined();
  });
});

describe("a change", () => {
  const present = { networkMode: "EGRESS", egress: ofTemplate, networkLimits: { connections: 50 } } as const;
  const asker = { tenant: "acme", network: everything };
  const changed = (change: NetworkChange, from: Parameters<typeof changedNetwork>[0] = present) =>
    changedNetwork(from, change, rules(), asker);

  test("of one part leaves the other", () => {
    expect(changed({ egress: defaultEgress })).toEqual({ ...present, egress: defaultEgress });
    expect(changed({ networkLimits: { connections: 5 } })).toEqual({
      ...present,
      networkLimits: { connections: 5 },
    });
    expect(changed({})).toEqual(present);
  });

  test("can be to have the tenant's again", () => {
    const changedToTenants = changed({ egress: "tenant's", networkLimits: "tenant's" });
    expect(changedToTenants).toEqual({ networkMode: "EGRESS" });
    expect(Object.keys(changedToTenants)).toEqual(["networkMode"]);
  });

  test("is held against the rules, below the request's own fields", () => {
    const wide = { ...defaultEgress, ports: [{ protocol: "TCP", first: 1, last: 443 } as const] };
    expect(refusal(() => changed({ egress: wide }))).toEqual(["NETWORK_NOT_ALLOWED", "egress.ports[0]"]);
    expect(refusal(() => changed({ egress: listed({ allowCidrs: ["::1"] }) }))).toEqual([
      "INVALID_FIELD",
      "egress.allow_cidrs[0]",
    ]);
    expect(refusal(() => changed({ egress: defaultEgress }, { networkMode: "INTERNAL" }))).toEqual([
      "INVALID_FIELD",
      "egress",
    ]);
  });

  test("is not refused for what it does not name", () => {
    const narrow = { tenant: "acme", network: { ...everything, egress: listed({}) } };
    const change = { networkLimits: { connections: 5 } };
    expect(refusal(() => changedNetwork(present, change, rules(), narrow))).toBeUndefined();
    expect(refusal(() => changedNetwork(present, { egress: ofTemplate }, rules(), narrow))).toEqual([
      "NETWORK_NOT_ALLOWED",
      "egress.allow_domains[0]",
    ]);
  });
});

describe("a repeated create", () => {
  test("hashes as in releases that knew no networks", () => {
    // made by the release before this one
    const known = "84efd776a0a836b831e6cd67c466cbafac3557e26df39900dd2737fed341800a";
    expect(hashOfRequest("acme", request)).toBe(known);
    expect(hashOfRequest("acme", { ...request, networkMode: "NONE" })).toBe(known);
  });

  test("with another network is another", () => {
    const hashes = [
      request,
      { ...request, networkMode: "INTERNAL" as const },
      { ...request, networkMode: "EGRESS" as const },
      { ...request, networkMode: "EGRESS" as const, egress: defaultEgress },
      { ...request, networkMode: "EGRESS" as const, networkLimits: { connections: 1 } },
    ].map((one) => hashOfRequest("acme", one));
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  test.each<[NetworkMode, NetworkMode | undefined, boolean]>([
    ["NONE", undefined, true],
    ["NONE", "NONE", true],
    ["EGRESS", undefined, true],
    ["EGRESS", "NONE", false],
  ])("of a sandbox that has %s by its template, asked with %s, is the same: %s", (has, asked, expected) => {
    const record = recordOf();
    const existing = {
      ...record,
      requestHash: hashOfRequest("acme", request),
      spec: { ...record.spec, networkMode: has },
    };
    const again = asked === undefined ? request : { ...request, networkMode: asked };
    expect(isRepeated(existing, "acme", again)).toBe(expected);
  });

  test("of another tenant, or of something else, is not the same", () => {
    const existing = { ...recordOf(), requestHash: hashOfRequest("acme", request) };
    expect(isRepeated(existing, "acme", request)).toBe(true);
    expect(isRepeated(existing, "acme", { ...request, image: "alpine" })).toBe(false);
    expect(isRepeated({ ...existing, tenant: "other" }, "acme", request)).toBe(false);
  });
});
