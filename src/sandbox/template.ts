// What a request takes from the template that it names.

import type { Config } from "../config/config.ts";
import { SandboxdError } from "../errors.ts";
import type { LifeRequest } from "./life-spec.ts";

type Template = Config["templates"][string];

/** Undefined for the empty name. @throws SandboxdError TEMPLATE_NOT_FOUND. */
export function findTemplate(name: string, templates: Config["templates"]): Template | undefined {
  const template = Object.hasOwn(templates, name) ? templates[name] : undefined;
  if (name === "" || template !== undefined) return template;
  const known = Object.keys(templates).join(", ") || "none";
  throw new SandboxdError("TEMPLATE_NOT_FOUND", `spec.template: this host has no template "${name}"`, {
    hint: `templates of this host: ${known}`,
    fields: [{ field: "spec.template", description: `unknown; this host has: ${known}` }],
  });
}

/** A template's keys as a request would say them. */
export function lifeOfTemplate({
  lifetime,
  restart,
  healthCheck,
  priority,
  stopSignal,
}: Template): LifeRequest {
  const { mode, ...delays } = restart;
  const { onExpiry, ...times } = lifetime;
  const { exec, tcpPort, httpPort, httpPath, onUnhealthy, ...pace } = healthCheck;
  const probe =
    exec !== undefined
      ? ({ kind: "exec", command: exec } as const)
      : tcpPort !== undefined
        ? ({ kind: "tcp", port: tcpPort } as const)
        : httpPort !== undefined
          ? ({ kind: "http", port: httpPort, path: httpPath } as const)
          : undefined;
  return {
    lifetime: { ...defined(times), ...(onExpiry === undefined ? {} : { onExpiry: upper(onExpiry) }) },
    restart: { ...defined(delays), ...(mode === undefined ? {} : { mode: upper(mode) }) },
    ...(probe === undefined
      ? {}
      : {
          healthCheck: {
            probe,
            ...defined(pace),
            ...(onUnhealthy === undefined ? {} : { onUnhealthy: upper(onUnhealthy) }),
          },
        }),
    ...(priority === undefined ? {} : { priority }),
    ...(stopSignal === undefined ? {} : { stopSignal }),
  };
}

type Upper<Word extends string> = Word extends `${infer Head}-${infer Tail}`
  ? `${Uppercase<Head>}_${Upper<Tail>}`
  : Uppercase<Word>;

/** The contract's word for one of the configuration: "on-failure" is ON_FAILURE. */
function upper<Word extends string>(word: Word): Upper<Word> {
  return word.toUpperCase().replaceAll("-", "_") as Upper<Word>;
}

/** Only the keys that have a value, so that laying over never erases. */
export function defined<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: NonNullable<T[K]>;
  };
}
