// sandboxctl start, stop, pause, resume and rm: each for any number of sandboxes, whose ids are printed as they are done.

import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { SandboxState } from "../../../../gen/sandboxd/v1/sandbox_pb.ts";
import { SandboxService } from "../../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type Arguments, optionValue } from "../arguments.ts";
import { type Command, CommandFailed } from "../context.ts";
import { forEach } from "../each.ts";
import { parseDurationMs } from "../units.ts";

type Sandboxes = Client<typeof SandboxService>;

function overAll(
  prepare: (args: Arguments) => (sandboxes: Sandboxes, sandboxId: string) => Promise<unknown>,
): Command {
  return async (context, args) => {
    const change = prepare(args);
    const sandboxes = context.client(SandboxService);
    const { exitCode } = await forEach(context, args.words, async (sandboxId) => {
      await change(sandboxes, sandboxId);
      context.print(`${sandboxId}\n`);
    });
    return exitCode;
  };
}

export const start = overAll(() => (sandboxes, sandboxId) => sandboxes.startSandbox({ sandboxId }));

export const stop = overAll((args) => {
  const time = optionValue(args, "time");
  const grace = time === undefined ? {} : { grace: durationFromMs(parseDurationMs(time, "--time")) };
  return (sandboxes, sandboxId) => sandboxes.stopSandbox({ sandboxId, ...grace });
});

export const pause = overAll(() => (sandboxes, sandboxId) => sandboxes.pauseSandbox({ sandboxId }));

export const resume = overAll(() => (sandboxes, sandboxId) => sandboxes.resumeSandbox({ sandboxId }));

/** Without force as `docker rm`: what runs, or was never there, is refused. The daemon itself deletes anything. */
export const remove = overAll(({ flags }) => async (sandboxes, sandboxId) => {
  if (!flags.has("force")) {
    const { sandbox } = await sandboxes.getSandbox({ sandboxId });
    const state = sandbox?.status?.state ?? SandboxState.UNSPECIFIED;
    if (![SandboxState.STOPPED, SandboxState.FAILED, SandboxState.DELETING].includes(state))
      throw new CommandFailed(`sandbox ${sandboxId} has not ended: stop it first, or use rm --force`);
  }
  await sandboxes.deleteSandbox({ sandboxId });
});
