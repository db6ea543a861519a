// Whether a sandbox reaches something: asked inside of it, by the daemon's own service.

import { ProcessService } from "../../gen/sandboxd/v1/process_service_pb.ts";
import type { Daemon } from "./daemon.ts";

/** What a script in a sandbox printed. */
export async function printed(
  daemon: Pick<Daemon, "client">,
  sandboxId: string,
  script: string,
): Promise<string> {
  let output = "";
  const events = daemon.client(ProcessService).startProcess({ sandboxId, command: ["sh", "-c", script] });
  for await (const { event } of events) {
    const told = event?.event;
    if (told?.case === "stdout" || told?.case === "stderr") output += Buffer.from(told.value).toString();
  }
  return output;
}

/** Whether somebody there echoes what is sent. */
export async function reaches(
  daemon: Pick<Daemon, "client">,
  sandboxId: string,
  destination: string,
  port: number,
): Promise<boolean> {
  const output = await printed(daemon, sandboxId, `echo hello | nc -w 1 ${destination} ${port}`);
  // who could not even ask shows nothing
  if (/can't fork/.test(output)) throw new Error(`nobody could ask: ${output}`);
  return output.startsWith("hello");
}
