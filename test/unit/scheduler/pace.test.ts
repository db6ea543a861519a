import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { PaceSchema } from "../../../gen/sandboxd/v1/scheduler_service_pb.ts";
import { periodsOf } from "../../../src/scheduler/pace.ts";

const own = { heartbeatMs: 5_000, statsMs: 10_000 };

function asked(heartbeatMs?: number, statsMs?: number) {
  return periodsOf(
    create(PaceSchema, {
      ...(heartbeatMs === undefined ? {} : { heartbeatPeriod: durationFromMs(heartbeatMs) }),
      ...(statsMs === undefined ? {} : { statsPeriod: durationFromMs(statsMs) }),
    }),
    own,
  );
}

describe("the pace", () => {
  test("is the host's own when the scheduler asks for none", () => {
    expect(periodsOf(undefined, own)).toEqual(own);
    expect(asked()).toEqual(own);
    expect(asked(0, 0)).toEqual(own);
  });

  test("is what the scheduler asks for, each period by itself", () => {
    expect(asked(250)).toEqual({ heartbeatMs: 250, statsMs: 10_000 });
    expect(asked(undefined, 2_500)).toEqual({ heartbeatMs: 5_000, statsMs: 2_500 });
  });

  test("stays within 100 ms to 5 min for heartbeats and 1 s to 1 h for stats", () => {
    expect(asked(1, 1)).toEqual({ heartbeatMs: 100, statsMs: 1_000 });
    expect(asked(-5, -5)).toEqual({ heartbeatMs: 100, statsMs: 1_000 });
    expect(asked(1e9, 1e9)).toEqual({ heartbeatMs: 300_000, statsMs: 3_600_000 });
  });
});
