import { toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { SnapshotSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { snapshotParts } from "../../../src/scheduler/snapshot.ts";
import { sandboxNamed } from "./fixture.ts";

function partsOf(count: number, image = "base:1") {
  const sandboxes = Array.from({ length: count }, (_, index) => sandboxNamed(`s-${index}`, { image }));
  return [...snapshotParts({ sandboxes, sequence: 42 })];
}

describe("a snapshot", () => {
  test("of nothing is one last part", () => {
    expect(partsOf(0).map(({ sandboxes, last }) => [sandboxes.length, last])).toEqual([[0, true]]);
  });

  test("comes in parts of at most 100 sandboxes, the last of which says so", () => {
    expect(partsOf(100).map(({ sandboxes, last }) => [sandboxes.length, last])).toEqual([[100, true]]);
    expect(partsOf(250).map(({ sandboxes, last }) => [sandboxes.length, last])).toEqual([
      [100, false],
      [100, false],
      [50, true],
    ]);
  });

  test("names the same sequence number in every part", () => {
    expect(partsOf(250).map(({ sequence }) => sequence)).toEqual([42n, 42n, 42n]);
  });

  test("of large sandboxes comes in parts that every gRPC receiver takes by default", () => {
    const parts = partsOf(100, "x".repeat(200_000));
    expect(parts.reduce((sum, { sandboxes }) => sum + sandboxes.length, 0)).toBe(100);
    for (const part of parts) expect(toBinary(SnapshotSchema, part).length).toBeLessThan(2 * 1024 * 1024);
  });
});
