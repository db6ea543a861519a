// What the host is made of: hardware, kernel, distribution. Asked once, in a program of its own: the library that knows is
// large, starts processes, and would stay in memory for good. Figures that change are the samplers' job.
import { spawn } from "node:child_process";
import { arch, cpus, release, totalmem, type, version } from "node:os";
import { extname, join } from "node:path";

/** The host's parts. A text is empty where nobody knows it. */
export interface HostParts {
  readonly cpu: {
    /** As "Intel Xeon Processor @ 2.90GHz". */
    readonly model: string;
    /** Threads that can run at once. */
    readonly logical: number;
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
}

export interface Inventory extends HostParts {
  /** "systeminformation", or "node" when that failed or took too long: then texts may be missing. */
  readonly source: "systeminformation" | "node";
  /** Why the source is "node". */
  readonly problem?: string;
}

export interface InventoryOptions {
  /** Aborting ends the program, with all that it has started; the answer is then as after any failure. */
  readonly signal?: AbortSignal;
  /** How long the program may take. Unit: milliseconds. Default: 10 s. */
  readonly timeoutMs?: number;
  /** Prints HostParts as JSON. Default: the one beside this file. */
  readonly program?: string;
}

const defaultTimeoutMs = 10_000;

/** Far more than it prints. */
const mostBytes = 65_536;

/** Bundled or not, it lies beside this file and is of the same kind. */
const ownProgram = join(import.meta.dirname, `inventory-program${extname(import.meta.filename)}`);

/** Gathers the inventory. Never rejects. */
export async function readInventory(options: InventoryOptions = {}): Promise<Inventory> {
  try {
    return { source: "systeminformation", ...partsOf(await outputOf(options)) };
  } catch (error) {
    return { source: "node", ...fromNode(), problem: error instanceof Error ? error.message : String(error) };
  }
}

/** What the program prints. It gets nothing of our environment, which may hold secrets, but where to find programs. */
function outputOf({ signal, timeoutMs = defaultTimeoutMs, program = ownProgram }: InventoryOptions) {
  return new Promise<string>((resolve, reject) => {
    signal?.throwIfAborted();
    // a process group of its own, so that it can be ended with all that it has started
    const child = spawn(process.execPath, [program], {
      detached: true,
      cwd: "/",
      env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C" },
      stdio: ["ignore", "pipe", "ignore"],
    });
    // first of all, since where it cannot be started it may have no output either
    child.on("error", reject);
    let problem: string | undefined;
    const end = (why: string) => {
      problem ??= why;
      killGroup(child.pid);
    };
    const chunks: Buffer[] = [];
    let bytes = 0;
    child.stdout.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > mostBytes) end(`more than ${mostBytes} bytes of answer`);
      else chunks.push(chunk);
    });
    const onAbort = () => end("no longer wanted");
    const timer = setTimeout(() => end(`no answer within ${timeoutMs} ms`), timeoutMs);
    signal?.addEventListener("abort", onAbort, { once: true });
    child.on("close", (code, killedBy) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      if (code !== 0) problem ??= `the program ended with ${code ?? killedBy}`;
      if (problem === undefined) resolve(Buffer.concat(chunks).toString());
      else reject(new Error(problem));
    });
  });
}

function killGroup(leader: number | undefined): void {
  if (leader === undefined) return;
  try {
    process.kill(-leader, "SIGKILL");
  } catch (error) {
    // all of it has ended already
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** @throws Error unless the text is HostParts in JSON. */
function partsOf(text: string): HostParts {
  const { cpu, memoryBytes, os } = JSON.parse(text);
  return {
    cpu: { model: textOf(cpu.model), logical: countOf(cpu.logical) },
    memoryBytes: countOf(memoryBytes),
    os: {
      distribution: textOf(os.distribution),
      release: textOf(os.release),
      kernel: textOf(os.kernel),
      architecture: textOf(os.architecture),
    },
  };
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value;
  throw new Error(`not a text: ${JSON.stringify(value)}`);
}

function countOf(value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value > 0) return value;
  throw new Error(`not a count: ${JSON.stringify(value)}`);
}

function fromNode(): HostParts {
  const processors = cpus();
  return {
    cpu: { model: processors[0]?.model ?? "", logical: processors.length },
    memoryBytes: totalmem(),
    os: { distribution: `${type()} ${version()}`, release: "", kernel: release(), architecture: arch() },
  };
}
