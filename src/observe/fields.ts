// Every field that a log line may have beside time, level, component and msg, with its meaning and unit. A name is
// never given another meaning.

export const logFields = {
  sandbox: "The sandbox's id.",
  tenant: "Owner of the sandbox.",
  template: "Name of a template.",
  image: "Image reference or content id.",
  container: "The engine's id of a container.",
  generation: "Generation of the sandbox.",
  from: "State before a transition.",
  to: "State after a transition.",
  reason: "Reason of a transition or of an error, as the contract names it.",
  actor: "Who caused it: kind, and identity for a caller.",
  sequence: "Sequence number of an event.",
  method: 'Method of the API: "sandboxd.v1.SandboxService/GetSandbox".',
  code: 'Status that a call ended with: "ok" or a status name.',
  correlation: "Id that the answer to a caller carries too.",
  caller: "Identity of the caller.",
  role: "Role of the caller.",
  verb: "What the engine was asked.",
  outcome: "How that ended.",
  endpoint: "Endpoint of a scheduler.",
  session: "Id of the session with the scheduler.",
  term: "Term of a scheduler.",
  condition: "Type of a host condition.",
  hint: "What a person can do about it.",
  address: "Address that is listened on.",
  path: "A file or directory.",
  signal: "Signal that the daemon received.",
  version: "Version of the daemon or of the engine.",
  host: "The host's id.",
  epoch: "Epoch of the state.",
  count: "How many.",
  attempt: "Which try it was, from 1.",
  durationMs: "How long it took. Milliseconds.",
  delayMs: "How long until the next try. Milliseconds.",
  exitCode: "Exit code of a main command or of the daemon.",
  err: "What was thrown: type, message, stack.",
} as const;

/** The fields of one line. */
export type LogFields = { readonly [K in keyof typeof logFields]?: unknown };
