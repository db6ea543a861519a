// Between the contract's times and milliseconds.

import { create } from "@bufbuild/protobuf";
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";

export function timestampOf(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1_000);
  return create(TimestampSchema, {
    seconds: BigInt(seconds),
    nanos: Math.round((ms - seconds * 1_000) * 1e6),
  });
}

export function durationOf(ms: number): Duration {
  const seconds = Math.trunc(ms / 1_000);
  return create(DurationSchema, {
    seconds: BigInt(seconds),
    nanos: Math.round((ms - seconds * 1_000) * 1e6),
  });
}

export function millisecondsOf(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + Math.round(duration.nanos / 1e6);
}
