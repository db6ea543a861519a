// Asks systeminformation what the host is made of, and prints it as JSON: a program of its own, see inventory.ts.
import { arch } from "node:os";
import si from "systeminformation";
import type { HostParts } from "./inventory.ts";

const [cpu, memory, os] = await Promise.all([si.cpu(), si.mem(), si.osInfo()]);
const parts: HostParts = {
  cpu: { model: [cpu.manufacturer, cpu.brand].filter(Boolean).join(" "), logical: cpu.cores },
  memoryBytes: memory.total,
  os: { distribution: os.distro, release: os.release, kernel: os.kernel, architecture: arch() },
};
process.stdout.write(JSON.stringify(parts));
