// WorkspaceService: decode, ask the domain, encode.

import type { ServiceImpl } from "@connectrpc/connect";
import type {
  ImportTarget,
  ImportWorkspaceRequest,
  WorkspaceService,
} from "../../gen/sandboxd/v1/workspace_service_pb.ts";
import { invalidField, SandboxdError } from "../errors.ts";
import type { Clock } from "../sandbox/clock.ts";
import { checkLabels } from "../sandbox/spec.ts";
import type { Archives } from "../workspace/archives.ts";
import type { WorkspaceRecord } from "../workspace/record.ts";
import type { WorkspaceRepository } from "../workspace/repository.ts";
import type { Snapshots } from "../workspace/snapshots.ts";
import type { UsageWatch } from "../workspace/usage-watch.ts";
import type { Workspaces } from "../workspace/workspaces.ts";
import { limitsRequestOf, snapshotOf, workspaceOf } from "./workspace-codec.ts";

export interface WorkspaceServiceOptions {
  readonly workspaces: Workspaces;
  readonly snapshots: Snapshots;
  readonly archives: Archives;
  readonly repository: WorkspaceRepository;
  readonly usageWatch: UsageWatch;
  readonly clock: Clock;
}

const defaultPage = 100;

export function createWorkspaceService({
  workspaces,
  snapshots,
  archives,
  repository,
  usageWatch,
  clock,
}: WorkspaceServiceOptions): ServiceImpl<typeof WorkspaceService> {
  const told = (record: WorkspaceRecord) =>
    workspaceOf(record, clock, {
      usage: usageWatch.usage(record),
      sandboxIds: workspaces.sandboxesOf(record.id).map(({ id }) => id),
    });
  return {
    async createWorkspace({ workspaceId: id, tenant, limits, labels }, { signal }) {
      checkLabels(labels, "labels");
      const request = { id, tenant, limits: limitsRequestOf(limits), labels, signal };
      return { workspace: told(await workspaces.create(request)) };
    },
    async getWorkspace({ workspaceId }) {
      const record = workspaces.get(workspaceId);
      // whoever asks for one wants to know what is in it now
      if (record.state === "READY") await usageWatch.see(record);
      return { workspace: told(repository.get(workspaceId) ?? record) };
    },
    listWorkspaces({ tenant, labels, pageSize, pageToken }) {
      const after = pageToken === "" ? "" : idOfToken(pageToken);
      const wanted = Object.entries(labels);
      const rest = repository
        .all()
        .filter(
          (record) =>
            record.id > after &&
            (tenant === "" || record.tenant === tenant) &&
            wanted.every(([key, value]) => record.labels[key] === value),
        );
      const page = rest.slice(0, pageSize || defaultPage);
      return {
        workspaces: page.map(told),
        nextPageToken: rest.length > page.length ? tokenOf(page.at(-1)?.id ?? "") : "",
      };
    },
    async updateWorkspace({ workspaceId: id, limits, clearSoftLimits, labels, generation }) {
      if (labels !== undefined) checkLabels(labels.labels, "labels");
      const updated = await workspaces.update({
        id,
        limits: limitsRequestOf(limits),
        clearsSoft: clearSoftLimits,
        ...(labels === undefined ? {} : { labels: labels.labels }),
        ...(generation === undefined ? {} : { generation: Number(generation) }),
      });
      return { workspace: told(updated) };
    },
    async deleteWorkspace({ workspaceId }, { signal }) {
      await workspaces.delete(workspaceId, { signal });
      return {};
    },
    async createSnapshot({ workspaceId, snapshotId }) {
      const { workspace, snapshot } = await snapshots.create(workspaceId, snapshotId);
      return { snapshot: snapshotOf(workspace, snapshot) };
    },
    listSnapshots({ workspaceId }) {
      const record = workspaces.get(workspaceId);
      const complete = record.snapshots.filter(({ isComplete }) => isComplete);
      return { snapshots: complete.map((snapshot) => snapshotOf(record, snapshot)) };
    },
    async restoreSnapshot({ workspaceId, snapshotId }) {
      return { workspace: told(await snapshots.restore(workspaceId, snapshotId)) };
    },
    async deleteSnapshot({ workspaceId, snapshotId }) {
      await snapshots.delete(workspaceId, snapshotId);
      return {};
    },
    async *exportWorkspace({ workspaceId, snapshotId, maxBytes }, { signal }) {
      const options = { maxBytes: Number(maxBytes), signal };
      for await (const data of archives.export(workspaceId, snapshotId, options)) yield { data };
    },
    async importWorkspace(requests, { signal }) {
      const iterator = requests[Symbol.asyncIterator]();
      try {
        const { workspaceId, maxBytes, maxEntries } = await targetOf(iterator);
        const bounds = { maxBytes: Number(maxBytes), maxEntries: Number(maxEntries) };
        const done = await archives.import(workspaceId, chunksOf(iterator), { ...bounds, signal });
        return { bytes: BigInt(done.bytes), entries: BigInt(done.entries) };
      } finally {
        // a sender that was refused may still be sending
        void iterator.return?.();
      }
    },
  };
}

/** The first message says where to, the others carry the archive. */
async function targetOf(iterator: AsyncIterator<ImportWorkspaceRequest>): Promise<ImportTarget> {
  const first = await iterator.next();
  if (first.done !== true && first.value.part.case === "target") return first.value.part.value;
  throw invalidField("target", "the first message must be the target", "send target, then data");
}

/** Nothing can start with the workspace meanwhile, so a sender that says nothing is not waited for. */
const mostSilenceMs = 60_000;

async function* chunksOf(iterator: AsyncIterator<ImportWorkspaceRequest>): AsyncGenerator<Uint8Array> {
  for (;;) {
    const next = await unlessSilent(iterator.next());
    if (next.done === true) return;
    const { part } = next.value;
    if (part.case !== "data") throw invalidField("data", "every message but the first must carry data");
    yield part.value;
  }
}

async function unlessSilent<T>(next: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const silent = new Promise<never>((_, reject) => {
    const message = `no data came for ${mostSilenceMs} ms; what was unpacked before stays`;
    timer = setTimeout(() => reject(new SandboxdError("DEADLINE_EXCEEDED", message)), mostSilenceMs);
  });
  try {
    return await Promise.race([next, silent]);
  } finally {
    clearTimeout(timer);
  }
}

const tokenPrefix = "workspace:";

function tokenOf(id: string): string {
  return Buffer.from(`${tokenPrefix}${id}`).toString("base64url");
}

function idOfToken(token: string): string {
  const text = Buffer.from(token, "base64url").toString("utf8");
  if (text.startsWith(tokenPrefix)) return text.slice(tokenPrefix.length);
  throw invalidField("page_token", "is not a token of this host", "start again without a page token");
}
