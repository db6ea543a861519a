// What the host is made of: hardware, kernel, disks. Asked once, and slow (it starts child processes), so never in
// anybody's way: figures that change are the samplers' job.
import { arch, cpus, release, totalmem, type, version } from "node:os";

/** The host's parts. A text is empty where nobody knows it. */
export interface Inventory {
  /** "systeminformation", or "node" when that failed or took too long: then texts and disks may be missing. */
  readonly source: "systeminformation" | "node";
  /** Why the source is "node". */
  readonly problem?: string;
  readonly cpu: {
    /** As "Intel Xeon Processor @ 2.90GHz". */
    readonly model: string;
    /** Threads that can run at once. */
    readonly logical: number;
    /** Cores; the same as logical where the source is "node". */
    readonly physical: number;
  };
  /** Unit: bytes. */
  readonly memoryBytes: number;
  readonly os: {
    /** As "Debian GNU/Linux". */
    readonly distribution: string;
    /** As "12". */
    readonly release: string;
    /** As "6.1.0-18-amd64". */
    readonly kernel: string;
    /** As Node names it: "x64", "arm64". */
    readonly architecture: string;
  };
  readonly disks: readonly InventoryDisk[];
}

export interface InventoryDisk {
  readonly device: string;
  readonly name: string;
  /** As "SSD", "HD", "NVMe"; empty when not known. */
  readonly kind: string;
  /** Unit: bytes. */
  readonly sizeBytes: number;
}

/** The part of systeminformation that is used; tests give their own. */
export type InventoryLibrary = Pick<
  typeof import("systeminformation"),
  "cpu" | "mem" | "osInfo" | "diskLayout"
>;

export interface InventoryOptions {
  /** How long to wait for systeminformation. Its processes aren't stopped by that. Unit: milliseconds. Default: 10 s. */
  readonly timeoutMs?: number;
  readonly load?: () => Promise<InventoryLibrary>;
}

export interface InventorySource {
  /** The inventory, gathered on the first call. Never rejects but for the signal, which ends this wait only. */
  get(options?: { readonly signal?: AbortSignal }): Promise<Inventory>;
}

const defaultTimeoutMs = 10_000;

export function createInventory(options: InventoryOptions = {}): InventorySource {
  let gathered: Promise<Inventory> | undefined;
  return {
    get({ signal } = {}) {
      gathered ??= gather(options);
      return signal === undefined ? gathered : abortable(gathered, signal);
    },
  };
}

async function gather(options: InventoryOptions): Promise<Inventory> {
  const timeout = AbortSignal.timeout(options.timeoutMs ?? defaultTimeoutMs);
  try {
    return await abortable(fromLibrary(options.load ?? loadLibrary), timeout);
  } catch (error) {
    return { ...fromNode(), problem: error instanceof Error ? error.message : String(error) };
  }
}

async function loadLibrary(): Promise<InventoryLibrary> {
  return (await import("systeminformation")).default;
}

async function fromLibrary(load: () => Promise<InventoryLibrary>): Promise<Inventory> {
  const library = await load();
  const [cpu, memory, os, disks] = await Promise.all([
    library.cpu(),
    library.mem(),
    library.osInfo(),
    library.diskLayout(),
  ]);
  return {
    source: "systeminformation",
    cpu: {
      model: [cpu.manufacturer, cpu.brand].filter(Boolean).join(" "),
      logical: cpu.cores,
      physical: cpu.physicalCores,
    },
    memoryBytes: memory.total,
    os: { distribution: os.distro, release: os.release, kernel: os.kernel, architecture: arch() },
    disks: disks.map(({ device, name, type: kind, size }) => ({ device, name, kind, sizeBytes: size })),
  };
}

function fromNode(): Inventory {
  const processors = cpus();
  return {
    source: "node",
    cpu: {
      model: processors[0]?.model ?? "",
      logical: processors.length,
      physical: processors.length,
    },
    memoryBytes: totalmem(),
    os: { distribution: `${type()} ${version()}`, release: "", kernel: release(), architecture: arch() },
    disks: [],
  };
}

/** The promise, or the signal's reason as a rejection if that comes first. */
function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = (): void => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
