// Between the contract's mounts and the domain's.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { SandboxSpec, SandboxSpecSchema } from "../../gen/sandboxd/v1/sandbox_pb.ts";
import type { MountRequest } from "../sandbox/mount-spec.ts";
import type { Mounts } from "../sandbox/record.ts";

/** A message that has yet to be made; its parts are plain values. */
type SpecInit = Exclude<MessageInitShape<typeof SandboxSpecSchema>, { readonly $typeName: string }>;

/** What a caller's spec asks for. Only what is set: requests that mean the same must stay equal over releases. */
export function mountRequestOf(spec: SandboxSpec | undefined): MountRequest {
  if (spec === undefined) return {};
  const { workspace } = spec;
  const tmpfs = spec.tmpfs.map(({ path, sizeBytes, inodes }) => ({
    path,
    sizeBytes: Number(sizeBytes),
    ...(inodes === undefined ? {} : { inodes: Number(inodes) }),
  }));
  const shared = spec.shared.map(({ name, path }) => ({ name, path }));
  const volumes = spec.volumes.map(({ name, path, readOnly }) => ({ name, path, readOnly }));
  return {
    ...(workspace === undefined
      ? {}
      : { workspace: { workspaceId: workspace.workspaceId, readOnly: workspace.readOnly } }),
    ...(tmpfs.length === 0 ? {} : { tmpfs }),
    ...(shared.length === 0 ? {} : { shared }),
    ...(volumes.length === 0 ? {} : { volumes }),
    ...(spec.rootBytes === undefined ? {} : { rootBytes: Number(spec.rootBytes) }),
  };
}

/** The effective spec's part, as it is told. */
export function mountsOf({ workspace, tmpfs = [], shared = [], volumes = [], rootBytes }: Mounts): SpecInit {
  return {
    ...(workspace === undefined ? {} : { workspace: { ...workspace } }),
    tmpfs: tmpfs.map(({ path, sizeBytes, inodes }) => ({
      path,
      sizeBytes: BigInt(sizeBytes),
      inodes: BigInt(inodes),
    })),
    shared: shared.map((mount) => ({ ...mount })),
    volumes: volumes.map((mount) => ({ ...mount })),
    ...(rootBytes === undefined ? {} : { rootBytes: BigInt(rootBytes) }),
  };
}
