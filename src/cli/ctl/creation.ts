// From the options of create and run to a request.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { RestartMode } from "../../../gen/sandboxd/v1/lifecycle_pb.ts";
import { NetworkMode, type SandboxSpecSchema } from "../../../gen/sandboxd/v1/sandbox_pb.ts";
import type { CreateSandboxRequestSchema } from "../../../gen/sandboxd/v1/sandbox_service_pb.ts";
import { type Arguments, optionValue, pairsOf, UsageError } from "./arguments.ts";
import { parseBytes, parseCount, parseCpuMillis, parseDurationMs } from "./units.ts";

type Env = Readonly<Record<string, string | undefined>>;
type Spec = MessageInitShape<typeof SandboxSpecSchema>;

/** The owner where none is named. */
const tenantVariable = "SANDBOXCTL_TENANT";

const restartModes: Readonly<Record<string, RestartMode>> = {
  no: RestartMode.NEVER,
  "on-failure": RestartMode.ON_FAILURE,
  "unless-stopped": RestartMode.UNLESS_STOPPED,
};

const networkModes: Readonly<Record<string, NetworkMode>> = {
  none: NetworkMode.NONE,
  internal: NetworkMode.INTERNAL,
  egress: NetworkMode.EGRESS,
};

/** @throws UsageError */
export function creationRequest(
  args: Arguments,
  env: Env,
): MessageInitShape<typeof CreateSandboxRequestSchema> {
  const tenant = optionValue(args, "tenant") ?? env[tenantVariable];
  if (tenant === undefined) throw new UsageError(`whose sandbox is it? Give --tenant or ${tenantVariable}`);
  return { sandboxId: optionValue(args, "id") ?? "", tenant, spec: specOf(args, env) };
}

function specOf(args: Arguments, env: Env): Spec {
  const given = <Value>(name: string, read: (text: string, option: string) => Value): Value | undefined => {
    const text = optionValue(args, name);
    return text === undefined ? undefined : read(text, `--${name}`);
  };
  const all = <Value>(name: string, read: (text: string, option: string) => Value): Value[] =>
    (args.values.get(name) ?? []).map((text) => read(text, `--${name}`));
  const asIs = (text: string) => text;
  return {
    template: given("template", asIs) ?? "",
    image: given("image", asIs) ?? "",
    command: [...args.words],
    env: pairsOf(args, "env", (key) => env[key]),
    labels: pairsOf(args, "label"),
    workingDir: given("workdir", asIs) ?? "",
    resources: defined({
      memoryBytes: given("memory", parseBytes),
      cpuMillis: given("cpus", parseCpuMillis),
      pids: given("pids", (text, option) => BigInt(parseCount(text, option))),
    }),
    lifetime: defined({
      ttl: given("ttl", parseDuration),
      idleTimeout: given("idle-timeout", parseDuration),
    }),
    ...defined({
      workspace: given("workspace", workspaceOf),
      restart: given("restart", restartOf),
      networkMode: given("network", networkOf),
    }),
    tmpfs: all("tmpfs", tmpfsOf),
    shared: all("shared", (text) => {
      const [name = "", path = ""] = text.split(":");
      return { name, path };
    }),
    volumes: all("volume", volumeOf),
  };
}

/** Without what is absent: a request tells a field that is not set from one that is undefined. */
function defined<Value extends object>(
  value: Value,
): { [Key in keyof Value]?: Exclude<Value[Key], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as never;
}

function parseDuration(text: string, option: string) {
  return durationFromMs(parseDurationMs(text, option));
}

function workspaceOf(text: string, option: string) {
  const [workspaceId = "", mode, ...more] = text.split(":");
  if (more.length > 0 || !isMode(mode))
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected ID or ID:ro`);
  return { workspaceId, readOnly: mode === "ro" };
}

function volumeOf(text: string, option: string) {
  const [name = "", path = "", mode, ...more] = text.split(":");
  if (more.length > 0 || !isMode(mode))
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected NAME, NAME:PATH or NAME:PATH:ro`);
  return { name, path, readOnly: mode === "ro" };
}

const isMode = (mode: string | undefined): boolean => mode === undefined || mode === "ro" || mode === "rw";

function tmpfsOf(text: string, option: string) {
  const [path = "", size, ...more] = text.split(":");
  if (size === undefined || more.length > 0)
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected PATH:BYTES, as /cache:64m`);
  return { path, sizeBytes: parseBytes(size, option) };
}

function networkOf(text: string, option: string): NetworkMode {
  const mode = Object.hasOwn(networkModes, text) ? networkModes[text] : undefined;
  if (mode === undefined)
    throw new UsageError(`${option} ${JSON.stringify(text)}: expected none, internal or egress`);
  return mode;
}

function restartOf(text: string, option: string) {
  const [word = "", most, ...more] = text.split(":");
  const mode = Object.hasOwn(restartModes, word) ? restartModes[word] : undefined;
  if (mode === undefined || more.length > 0)
    throw new UsageError(
      `${option} ${JSON.stringify(text)}: expected no, on-failure[:N] or unless-stopped[:N]`,
    );
  return most === undefined ? { mode } : { mode, maxAttempts: parseCount(most, option) };
}
