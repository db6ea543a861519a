// What a container carries of its sandbox: enough to rebuild the record if the state is lost, under a keyed MAC, so that
// nobody's else label, an image's included, is ever taken for ours.

import { createHmac, timingSafeEqual } from "node:crypto";
import { completed, type SandboxRecord } from "./record.ts";

export const labelPrefix = "sandboxd.";
const hostLabel = `${labelPrefix}host`;
const recordLabel = `${labelPrefix}record`;
const macLabel = `${labelPrefix}mac`;

/** The label by which this host's containers are listed. */
export function hostSelector(hostId: string): string {
  return `${hostLabel}=${hostId}`;
}

/** The part of a record that does not change after its creation. */
export type Identity = Pick<
  SandboxRecord,
  | "id"
  | "instance"
  | "tenant"
  | "uid"
  | "isInTenantCgroup"
  | "toolbox"
  | "spec"
  | "place"
  | "requestHash"
  | "createdAtMs"
  | "imageId"
  | "imageVolumes"
>;

export interface LabelCodec {
  encode(record: SandboxRecord): Readonly<Record<string, string>>;
  /** Undefined for labels that this host did not write: another host's, an image's, or changed ones. */
  decode(labels: Readonly<Record<string, string>>): Identity | undefined;
}

/** `key` is this host's secret, of 32 bytes. */
export function createLabelCodec(hostId: string, key: Buffer): LabelCodec {
  const macOf = (record: string) => createHmac("sha256", key).update(`${hostId}\n${record}`).digest("hex");
  return {
    encode({
      id,
      instance,
      tenant,
      uid,
      isInTenantCgroup,
      toolbox,
      spec,
      place,
      requestHash,
      createdAtMs,
      imageId,
      imageVolumes,
    }) {
      const identity: Identity = {
        id,
        instance,
        tenant,
        uid,
        // what earlier releases wrote is compared with this
        ...(isInTenantCgroup === undefined ? {} : { isInTenantCgroup }),
        ...(toolbox === undefined ? {} : { toolbox }),
        spec,
        ...(place === undefined ? {} : { place }),
        requestHash,
        createdAtMs,
        imageId,
        imageVolumes,
      };
      const record = JSON.stringify(identity);
      return { [hostLabel]: hostId, [recordLabel]: record, [macLabel]: macOf(record) };
    },
    decode(labels) {
      const record = labels[recordLabel];
      const mac = labels[macLabel];
      if (labels[hostLabel] !== hostId || record === undefined || mac === undefined) return undefined;
      const expected = Buffer.from(macOf(record));
      const found = Buffer.from(mac);
      if (found.length !== expected.length || !timingSafeEqual(found, expected)) return undefined;
      return completed(JSON.parse(record) as Identity);
    },
  };
}
