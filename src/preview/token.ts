// Tokens of the preview: each for one port of one run of a sandbox, until a time. Nothing is kept of them; they are known by the host's signature.

import { createHmac, timingSafeEqual } from "node:crypto";
import type { SandboxRecord } from "../sandbox/record.ts";

/** What a token that holds is good for. */
export interface Grant {
  readonly record: SandboxRecord;
  readonly port: number;
  readonly expiresAtMs: number;
}

export interface Tokens {
  issue(record: SandboxRecord, port: number, expiresAtMs: number): string;
  /** Undefined for one that is expired, of an earlier run, or not this host's. */
  verify(token: string, nowMs: number): Grant | undefined;
  /** Whether it has the form of a token, good or not. */
  isToken(text: string): boolean;
  /** The name of the host, below the preview's domain, that a port of this sandbox has: another for a later sandbox of the same id. */
  labelOf(record: SandboxRecord, port: number): string;
}

export interface TokensOptions {
  /** The host's secret. */
  readonly key: Buffer;
  readonly find: (sandboxId: string) => SandboxRecord | undefined;
}

const form = /^sbxp1\.([1-9]\d{0,4})\.(\d{1,12})\.([a-z0-9-]{1,63})\.([A-Za-z0-9_-]{43})$/;

/** Of a name in DNS: 63, less the port, two hyphens and the tag. */
const mostIdInLabel = 43;
const tagLength = 12;

export function createTokens({ key, find }: TokensOptions): Tokens {
  const tokenKey = createHmac("sha256", key).update("preview token").digest();
  const labelKey = createHmac("sha256", key).update("preview label").digest();

  function signatureOf(record: SandboxRecord | undefined, said: readonly (string | number)[]): string {
    // of what does not exist the signature is made too, so that it takes as long
    const run = [record?.instance ?? "", record?.containerId ?? "", record?.startedAtMs ?? ""];
    return createHmac("sha256", tokenKey)
      .update(JSON.stringify([...said, ...run]))
      .digest("base64url");
  }

  return {
    issue(record, port, expiresAtMs) {
      const seconds = Math.floor(expiresAtMs / 1_000);
      return `sbxp1.${port}.${seconds}.${record.id}.${signatureOf(record, [port, seconds, record.id])}`;
    },
    verify(token, nowMs) {
      const [, digits = "", seconds = "", id = "", signature = ""] = form.exec(token) ?? [];
      if (id === "") return undefined;
      const record = find(id);
      const [port, expiresAtMs] = [Number(digits), Number(seconds) * 1_000];
      const expected = signatureOf(record, [port, Number(seconds), id]);
      const isOurs = timingSafeEqual(Buffer.from(expected), Buffer.from(signature));
      if (!isOurs || record === undefined || nowMs >= expiresAtMs) return undefined;
      return { record, port, expiresAtMs };
    },
    isToken: (text) => form.test(text),
    labelOf({ id, instance }, port) {
      const tag = createHmac("sha256", labelKey)
        .update(JSON.stringify([instance, port]))
        .digest("hex")
        .slice(0, tagLength);
      return `${port}-${id.slice(0, mostIdInLabel)}-${tag}`;
    },
  };
}
