// What can be wrong with a configuration, and how it is told: where, which key, which value, what is allowed and
// what to do.

/** Where a value came from. */
export type Source =
  | { readonly kind: "default" }
  | { readonly kind: "file"; readonly file: string; readonly line?: number; readonly column?: number }
  | { readonly kind: "environment"; readonly name: string }
  | { readonly kind: "flag"; readonly flag: string };

export interface ConfigError {
  readonly source: Source;
  /** The key with its sections, "engine.socket". Empty: the file or the flag as a whole. */
  readonly key: string;
  /** What is wrong, with the value unless that is secret. */
  readonly problem: string;
  readonly allowed?: string;
  readonly hint?: string;
}

/** One line: `/etc/sandboxd/sandboxd.toml:12: engine.socket: "x" is not …; allowed: …. Hint: …`. */
export function formatConfigError({ source, key, problem, allowed, hint }: ConfigError): string {
  const subject = [formatSource(source), ...(key === "" ? [] : [key]), problem].join(": ");
  const bounds = allowed === undefined ? "" : `; allowed: ${allowed}`;
  return `${subject}${bounds}${hint === undefined ? "" : `. Hint: ${hint}`}`;
}

/** "/etc/sandboxd/sandboxd.toml:12", "SANDBOXD_ENGINE_SOCKET", "--set engine.socket" or "default". */
export function formatSource(source: Source): string {
  switch (source.kind) {
    case "default":
      return "default";
    case "environment":
      return source.name;
    case "flag":
      return source.flag;
    case "file":
      return [source.file, source.line, source.column].filter((part) => part !== undefined).join(":");
  }
}
