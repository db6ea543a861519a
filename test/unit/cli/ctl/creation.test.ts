import { expect, test } from "vitest";
import { NetworkMode } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import { UsageError } from "../../../../src/cli/ctl/arguments.ts";
import { creationRequest } from "../../../../src/cli/ctl/creation.ts";

const specOf = (options: Readonly<Record<string, string>>) =>
  creationRequest(
    {
      words: [],
      flags: new Set(),
      values: new Map(Object.entries({ tenant: "ann", ...options }).map(([name, value]) => [name, [value]])),
    },
    {},
  ).spec;

test("a network is asked for by the name of its mode, and not at all without one", () => {
  expect(specOf({})).not.toHaveProperty("networkMode");
  expect(specOf({ network: "none" })).toHaveProperty("networkMode", NetworkMode.NONE);
  expect(specOf({ network: "internal" })).toHaveProperty("networkMode", NetworkMode.INTERNAL);
  expect(specOf({ network: "egress" })).toHaveProperty("networkMode", NetworkMode.EGRESS);
});

test.each(["host", "EGRESS", "", "toString"])("a network %j is a wrong use", (network) => {
  expect(() => specOf({ network })).toThrow(UsageError);
});
