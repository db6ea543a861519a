// nftables through the `nft` program.

import { messageOf, SandboxdError } from "../../errors.ts";
import { ProgramError, type Run } from "../program.ts";

export type Family = "inet" | "bridge";

export interface Nft {
  /** Carries out a script as one transaction: all of it or nothing. Rejects with what nft says. */
  apply(script: string): Promise<void>;
  /** Whether program and kernel could carry it out. Changes nothing. */
  check(script: string): Promise<void>;
  /** As JSON; undefined if there is no such table. */
  listTable(family: Family, table: string): Promise<string | undefined>;
  /** The same of one set of it. */
  listSet(family: Family, table: string, set: string): Promise<string | undefined>;
}

export function createNft(run: Run): Nft {
  const list = async (words: readonly string[]) => {
    try {
      return await run(["nft", "-j", "list", ...words]);
    } catch (error) {
      if (error instanceof ProgramError && !error.isAbsent && /No such file or directory/.test(error.message))
        return undefined;
      throw error;
    }
  };
  return {
    apply: async (script) => void (await run(["nft", "-f", "-"], script)),
    check: async (script) => void (await run(["nft", "-c", "-f", "-"], script)),
    listTable: (family, table) => list(["table", family, table]),
    listSet: (family, table, set) => list(["set", family, table, set]),
  };
}

/** Why the rules are not there, for people. */
export function nftProblem(error: unknown): string {
  const isAbsent = error instanceof ProgramError && error.isAbsent;
  return `nftables cannot be used: ${messageOf(error)}${isAbsent ? " (install nftables)" : ""}`;
}

export function unavailable(error: unknown): SandboxdError {
  if (error instanceof SandboxdError) return error;
  const isAbsent = error instanceof ProgramError && error.isAbsent;
  return new SandboxdError("NETWORK_UNAVAILABLE", nftProblem(error), {
    hint: isAbsent
      ? "install nftables; the daemon finds it by itself"
      : "the daemon needs CAP_NET_ADMIN, and a kernel with nf_tables, its sets, NAT and connection tracking",
    cause: error,
  });
}
