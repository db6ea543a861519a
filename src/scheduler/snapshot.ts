// All sandboxes of the host in parts that fit into messages.

import { create, toBinary } from "@bufbuild/protobuf";
import { type Sandbox, SandboxSchema } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import { type Snapshot, SnapshotSchema } from "../../gen/sandboxd/v1/scheduler_service_pb.ts";
import type { UplinkSnapshot } from "./source.ts";

// The contract's bound.
const sandboxesPerPart = 100;

// A sandbox's command, arguments and environment may be 128 KiB. Receivers in Go, Python and Java refuse messages of more
// than 4 MiB unless told otherwise.
const bytesPerPart = 1024 * 1024;

/** The parts, made one at a time; the last one says so. No sandboxes make one empty part. */
export function* snapshotParts({ sandboxes, sequence }: UplinkSnapshot): Generator<Snapshot, void> {
  let part: Sandbox[] = [];
  let bytes = 0;
  for (const sandbox of sandboxes) {
    const size = toBinary(SandboxSchema, sandbox).length;
    if (part.length === sandboxesPerPart || (part.length > 0 && bytes + size > bytesPerPart)) {
      yield create(SnapshotSchema, { sandboxes: part, sequence: BigInt(sequence) });
      part = [];
      bytes = 0;
    }
    part.push(sandbox);
    bytes += size;
  }
  yield create(SnapshotSchema, { sandboxes: part, sequence: BigInt(sequence), last: true });
}
