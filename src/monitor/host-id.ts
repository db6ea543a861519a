// Who this host is, and which of its lives this is.
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";

/** The application that ids are derived for; another value would give every host a new id. */
const application = "sandboxd.v1";

const machineIdPattern = /^[0-9a-f]{32}$/;

/**
 * The id of the running kernel's life: a UUID, new at every boot. Rejects with the system's error where the kernel
 * doesn't tell it.
 */
export async function readBootId({ signal, path }: ReadOptions = {}): Promise<string> {
  const text = await readFile(path ?? "/proc/sys/kernel/random/boot_id", { encoding: "utf8", signal });
  return text.trim();
}

/**
 * A lasting id of this machine, 32 hexadecimal digits: derived from /etc/machine-id, which machine-id(5) asks not to
 * show to anyone, as that page says (a keyed hash). Undefined where the machine has none yet; a host cloned with
 * its /etc has its twin's.
 */
export async function readMachineId({ signal, path }: ReadOptions = {}): Promise<string | undefined> {
  let text: string;
  try {
    text = await readFile(path ?? "/etc/machine-id", { encoding: "utf8", signal });
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
  const machineId = text.trim();
  // an image before its first boot holds "uninitialized" or nothing
  return machineIdPattern.test(machineId)
    ? createHmac("sha256", machineId).update(application).digest("hex").slice(0, 32)
    : undefined;
}

interface ReadOptions {
  readonly signal?: AbortSignal;
  /** Another file to read, for tests. */
  readonly path?: string;
}
