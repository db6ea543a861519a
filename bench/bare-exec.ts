// The baseline inside of a sandbox: the engine's own exec, called with nothing in between, as the same user in the same container.

import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import Docker from "dockerode";
import { createAgent } from "../src/engine/agent.ts";
import { sharedEngine } from "../test/harness/engine.ts";

export interface BareExec {
  /** Until its exit code is known. Its output is read, and its frames' payload counted. */
  run(command: readonly string[]): Promise<{ readonly exitCode: number; readonly outputBytes: number }>;
  /** The same with an input. @throws Error unless it exits with 0. */
  feed(command: readonly string[], input: Buffer): Promise<void>;
  /** Milliseconds from each byte typed into a terminal to its echo. */
  keystrokes(count: number): Promise<readonly number[]>;
}

const frameHeaderBytes = 8;

export function openBareExec(containerId: string, user: string): BareExec {
  // the client takes an agent, though its types don't say so
  const options: Docker.DockerOptions = { socketPath: sharedEngine(), ...{ agent: createAgent() } };
  const container = new Docker(options).getContainer(containerId);

  async function exitCodeOf(exec: Docker.Exec): Promise<number> {
    for (;;) {
      const { Running: isRunning, ExitCode: code } = await exec.inspect();
      if (!isRunning && code !== null) return code;
      await sleep(1);
    }
  }

  return {
    async run(command) {
      const exec = await container.exec({
        Cmd: [...command],
        User: user,
        AttachStdout: true,
        AttachStderr: true,
      });
      const stream: Readable = await exec.start({ Detach: false, Tty: false });
      const outputBytes = await payloadBytes(stream);
      return { exitCode: await exitCodeOf(exec), outputBytes };
    },
    async feed(command, input) {
      const exec = await container.exec({
        ...{ Cmd: [...command], User: user },
        ...{ AttachStdin: true, AttachStdout: true, AttachStderr: true },
      });
      const stream: Duplex = await exec.start({ hijack: true, stdin: true });
      stream.end(input);
      await payloadBytes(stream);
      const exitCode = await exitCodeOf(exec);
      if (exitCode !== 0) throw new Error(`${command[0]} ended with ${exitCode}`);
    },
    async keystrokes(count) {
      const exec = await container.exec({
        ...{ Cmd: ["cat"], User: user, Tty: true },
        ...{ AttachStdin: true, AttachStdout: true, AttachStderr: true },
      });
      const stream: Duplex = await exec.start({ hijack: true, stdin: true, Tty: true });
      const values: number[] = [];
      for (let key = 0; key < count; key += 1) {
        const echoed = new Promise((resolve) => stream.once("data", resolve));
        const began = performance.now();
        stream.write("x");
        await echoed;
        values.push(performance.now() - began);
      }
      // the end of a line, then the end of the input
      stream.write("\n\u0004");
      await exitCodeOf(exec);
      stream.destroy();
      return values;
    },
  };
}

/** Bytes of output without the headers of the engine's frames. */
async function payloadBytes(stream: Readable): Promise<number> {
  let payload = 0;
  /** Of the frame that is being read. */
  let left = 0;
  let header: Buffer = Buffer.alloc(0);
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    for (let at = 0; at < chunk.length; ) {
      if (left > 0) {
        const part = Math.min(left, chunk.length - at);
        payload += part;
        left -= part;
        at += part;
        continue;
      }
      const part = chunk.subarray(at, at + frameHeaderBytes - header.length);
      header = Buffer.concat([header, part]);
      at += part.length;
      if (header.length < frameHeaderBytes) continue;
      left = header.readUInt32BE(4);
      header = Buffer.alloc(0);
    }
  }
  return payload;
}
