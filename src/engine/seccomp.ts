// The sandboxes' system call filter, as the engine takes it: one string, and the hash by which it is recognised.

import { createHash } from "node:crypto";
import profile from "./seccomp.json" with { type: "json" };

/** The profile in the engine's format, on one line; the value after `seccomp=` in a security option. */
export const seccompProfile: string = JSON.stringify(profile);

/** Lower-case hex SHA-256 of `seccompProfile`: tells in logs and labels under which filter a sandbox runs. */
export const seccompSha256: string = createHash("sha256").update(seccompProfile).digest("hex");
