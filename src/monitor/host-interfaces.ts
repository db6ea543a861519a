// Which of the host's network interfaces count as its traffic. Bridges, veth pairs and tunnels carry packets that an
// interface with hardware carries too.
import { existsSync, readdirSync } from "node:fs";
import { exceptLoopback } from "./network-counters.ts";

/** Hosts with many sandboxes make and drop interfaces all day; their names are not kept for ever. */
const rememberedNames = 4096;

/**
 * Decides by /sys/class/net (given as `classNet`): an interface with a device below it counts. Where there is none
 * when the daemon starts (a host that is itself a container), all but loopback do. Asked once per name.
 */
export function createInterfaceFilter(classNet: string): typeof exceptLoopback {
  const known = new Map<string, boolean>();
  const hasDevice = (name: string): boolean => existsSync(`${classNet}/${name}/device`);
  if (!existsSync(classNet) || !readdirSync(classNet).some(hasDevice)) {
    return exceptLoopback;
  }
  return (bytes, start, nameEnd) => {
    const name = String.fromCharCode(...bytes.subarray(start, nameEnd));
    const answer = known.get(name) ?? hasDevice(name);
    if (known.size >= rememberedNames) {
      known.clear();
    }
    known.set(name, answer);
    return answer;
  };
}
