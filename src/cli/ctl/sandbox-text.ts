// How a sandbox is, in a few words.

import { HealthState } from "../../../gen/sandboxd/v1/lifecycle_pb.ts";
import { type Sandbox, SandboxState, TransitionReason } from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import { wordsOf } from "./output.ts";
import { ageText } from "./units.ts";

/** "running 5m (healthy)", "failed 3m ago: oom killed, exit code 137". */
export function statusText({ status }: Sandbox): string {
  if (status === undefined) return "";
  const { state, transition, exit, startTime, health, stuck } = status;
  const name = wordsOf(SandboxState[state]);
  const notes = [
    ...(health === undefined ? [] : [wordsOf(HealthState[health.state])]),
    ...(stuck === undefined ? [] : ["stuck"]),
  ];
  const noted = notes.length === 0 ? "" : ` (${notes.join(", ")})`;
  switch (state) {
    case SandboxState.RUNNING:
      return `${name} ${ageText(startTime)}${noted}`;
    case SandboxState.STOPPED:
    case SandboxState.FAILED: {
      const why = wordsOf(TransitionReason[transition?.reason ?? TransitionReason.UNSPECIFIED]);
      const code = exit === undefined ? "" : `, exit code ${exit.code}`;
      return `${name} ${ageText(transition?.time)} ago: ${why}${code}`;
    }
    default:
      return `${name} ${ageText(transition?.time)}${noted}`;
  }
}
