import fc from "fast-check";
import { expect, test } from "vitest";
import { createLabelCodec, hostSelector } from "../../../src/sandbox/labels.ts";
import { completed } from "../../../src/sandbox/record.ts";
import { anyResources, recordOf } from "./fixture.ts";

const key = Buffer.alloc(32, 7);
const codec = createLabelCodec("host-one", key);

const anyRecord = fc
  .record({
    id: fc.string(),
    tenant: fc.string({ unit: "binary" }),
    env: fc.dictionary(fc.string(), fc.string({ unit: "grapheme" })),
    command: fc.array(fc.string({ unit: "grapheme" })),
    resources: anyResources,
    uid: fc.nat(),
  })
  .map(({ id, tenant, env, command, resources, uid }) =>
    recordOf({ id, tenant, uid, spec: { ...recordOf().spec, env, command, resources } }),
  );

test("what never changes of a record reads back from its labels", () => {
  fc.assert(
    fc.property(anyRecord, (record) => {
      const { id, instance, tenant, uid, spec, requestHash, createdAtMs, imageId, imageVolumes } = record;
      const identity = { id, instance, tenant, uid, spec, requestHash, createdAtMs, imageId, imageVolumes };
      expect(codec.decode(codec.encode(record))).toEqual(JSON.parse(JSON.stringify(identity)));
    }),
  );
});

test("a record that was read back from the state has the labels that its container was given", () => {
  fc.assert(
    fc.property(anyRecord, (record) => {
      expect(codec.encode(completed(JSON.parse(JSON.stringify(record))))).toEqual(codec.encode(record));
    }),
  );
});

test("labels are found by the host's selector and all lie under the prefix", () => {
  const labels = codec.encode(recordOf());
  const [name = "", value] = hostSelector("host-one").split("=");
  expect(labels[name]).toBe(value);
  for (const label of Object.keys(labels)) expect(label).toMatch(/^sandboxd\./);
});

test("labels of others beside them change nothing", () => {
  const labels = codec.encode(recordOf());
  expect(codec.decode({ maintainer: "someone", "sandboxd.id": "other", ...labels })?.id).toBe("one");
});

test("with any character changed, added or left out they are foreign", () => {
  const labels = codec.encode(recordOf());
  const anyChange = fc.constantFrom(...Object.entries(labels)).chain(([label, value]) =>
    fc
      .record({ at: fc.nat(value.length - 1), removed: fc.nat(1), added: fc.string({ maxLength: 1 }) })
      .map(({ at, removed, added }) => ({
        label,
        value,
        changed: value.slice(0, at) + added + value.slice(at + removed),
      })),
  );
  fc.assert(
    fc.property(anyChange, ({ label, value, changed }) => {
      fc.pre(changed !== value);
      expect(codec.decode({ ...labels, [label]: changed })).toBeUndefined();
    }),
    { numRuns: 1_000 },
  );
});

test("without any one of them they are foreign", () => {
  const labels = codec.encode(recordOf());
  for (const left of Object.keys(labels)) {
    const rest = Object.fromEntries(Object.entries(labels).filter(([label]) => label !== left));
    expect(codec.decode(rest)).toBeUndefined();
  }
  expect(codec.decode({})).toBeUndefined();
});

test("another host's labels are foreign, even under its name, and even with its key", () => {
  const labels = codec.encode(recordOf());
  const otherKey = createLabelCodec("host-one", Buffer.alloc(32, 8));
  const otherHost = createLabelCodec("host-two", key);
  expect(otherKey.decode(labels)).toBeUndefined();
  expect(otherHost.decode(labels)).toBeUndefined();
  expect(otherHost.decode({ ...labels, "sandboxd.host": "host-two" })).toBeUndefined();
});

test("one sandbox's signature does not sign another's record", () => {
  const one = codec.encode(recordOf());
  const two = codec.encode(recordOf({ id: "two" }));
  expect(codec.decode({ ...one, "sandboxd.record": two["sandboxd.record"] ?? "" })).toBeUndefined();
});
