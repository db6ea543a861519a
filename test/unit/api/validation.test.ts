import type { Message, MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  HealthCheckResponseSchema,
  HealthListResponseSchema,
} from "../../../gen/grpc/health/v1/health_pb.ts";
import { HostConditionSchema, HostSchema } from "../../../gen/sandboxd/v1/host_pb.ts";
import { WatchHostResponseSchema } from "../../../gen/sandboxd/v1/host_service_pb.ts";
import { ResourcesSchema } from "../../../gen/sandboxd/v1/resources_pb.ts";
import {
  CreateSandboxRequestSchema,
  GetSandboxRequestSchema,
  StopSandboxRequestSchema,
} from "../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { assertNoUnknownFields, createRuleCheck } from "../../../src/api/validation.ts";
import type { FieldViolation } from "../../../src/errors.ts";
import { SandboxdError } from "../../../src/errors.ts";

const check = createRuleCheck();

function violations(action: () => void): readonly FieldViolation[] {
  try {
    action();
  } catch (error) {
    if (error instanceof SandboxdError) {
      return error.details.fields ?? [];
    }
    throw error;
  }
  return [];
}

function violationsOf(
  request: MessageInitShape<typeof CreateSandboxRequestSchema>,
): readonly FieldViolation[] {
  return violations(() => check(CreateSandboxRequestSchema, create(CreateSandboxRequestSchema, request)));
}

describe("the rules of the contract", () => {
  test("let a good request pass", () => {
    expect(violationsOf({ sandboxId: "a-1", tenant: "t", spec: { image: "x:1", env: { A: "b" } } })).toEqual(
      [],
    );
  });

  test("name the field, the value and the limit", () => {
    const [violation] = violationsOf({ tenant: "t", spec: { resources: { cpuMillis: 1n } } });
    expect(violation?.field).toBe("spec.resources.cpu_millis");
    expect(violation?.description).toMatch(/^1 must be .* 10 .* 1024000$/);
  });

  test("name a duration in seconds", () => {
    const request = create(StopSandboxRequestSchema, { sandboxId: "a", grace: { seconds: 601n } });
    const [violation] = violations(() => check(StopSandboxRequestSchema, request));
    expect(violation?.description).toMatch(/^601s must be .* 600s$/);
  });

  test("shorten a long value", () => {
    const request = create(GetSandboxRequestSchema, { sandboxId: "X".repeat(10_000) });
    const [violation] = violations(() => check(GetSandboxRequestSchema, request));
    expect(violation?.description.length).toBeLessThan(200);
  });

  test("never repeat what may be a secret: values of the environment, arguments", () => {
    const told = JSON.stringify(
      violationsOf({
        tenant: "t",
        spec: { env: { A: "hunter2\0" }, args: ["hunter2\0"], command: ["hunter2\0"] },
      }),
    );
    expect(told).not.toContain("hunter2");
    expect(told.match(/\(8 bytes\)/g)).toHaveLength(3);
  });

  test("are checked in well under a millisecond", () => {
    const request = create(GetSandboxRequestSchema, { sandboxId: "some-sandbox" });
    check(GetSandboxRequestSchema, request);
    const begun = performance.now();
    for (let round = 0; round < 1000; round += 1) {
      check(GetSandboxRequestSchema, request);
    }
    expect((performance.now() - begun) / 1000).toBeLessThan(0.2);
  });
});

function withUnknown<M extends Message>(message: M): M {
  message.$unknown = [{ no: 99, wireType: 2, data: new Uint8Array([1, 120]) }];
  return message;
}

describe("a field that is not in the contract is found", () => {
  const inHost = create(HostSchema, { conditions: [{}, withUnknown(create(HostConditionSchema))] });
  const inMap = { a: withUnknown(create(HealthCheckResponseSchema)) };
  test.each([
    ["at the top", "field 99", withUnknown(create(CreateSandboxRequestSchema)), CreateSandboxRequestSchema],
    [
      "two levels down",
      "spec.resources.field 99",
      create(CreateSandboxRequestSchema, { spec: { resources: withUnknown(create(ResourcesSchema)) } }),
      CreateSandboxRequestSchema,
    ],
    ["in a list", "conditions[1].field 99", inHost, HostSchema],
    [
      "in a map",
      'statuses["a"].field 99',
      create(HealthListResponseSchema, { statuses: inMap }),
      HealthListResponseSchema,
    ],
    [
      "in the chosen member of a oneof",
      "host.conditions[1].field 99",
      create(WatchHostResponseSchema, { update: { case: "host", value: inHost } }),
      WatchHostResponseSchema,
    ],
  ])("%s", (_name, field, message, schema) => {
    expect(violations(() => assertNoUnknownFields(schema, message))[0]?.field).toBe(field);
  });

  test("and a message without one passes", () => {
    const message = create(CreateSandboxRequestSchema, {
      tenant: "t",
      spec: { env: { A: "b" }, resources: { pids: 5n } },
    });
    expect(() => assertNoUnknownFields(CreateSandboxRequestSchema, message)).not.toThrow();
  });
});
