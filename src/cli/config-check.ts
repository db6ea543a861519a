// `sandboxd config check`: the configuration as it takes effect, or everything that is wrong with it.

import { formatConfigError, formatSource } from "../config/error.ts";
import { findConfigFile } from "../config/file.ts";
import { loadConfig } from "../config/load.ts";
import type { ConfigArgs } from "./args.ts";

export interface ConfigCheckOptions extends ConfigArgs {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
}

/**
 * Prints the configuration as TOML, each key with where it came from and secrets redacted; or each error on a line.
 *
 * @returns the exit code: 0 if it is valid, else 1.
 */
export function checkConfig(options: ConfigCheckOptions): 0 | 1 {
  const file = findConfigFile(options.configFile);
  const loaded = loadConfig({ file, env: options.env, flags: options.set, dev: options.dev });
  if ("errors" in loaded) {
    const lines = loaded.errors.map((error) => `${formatConfigError(error)}\n`);
    options.stderr.write(`${lines.join("")}${lines.length === 1 ? "1 error" : `${lines.length} errors`}\n`);
    return 1;
  }
  const lines = loaded.settings.map(({ key, literal, source }) =>
    literal === undefined ? `# ${key} is not set` : `${key} = ${literal} # ${formatSource(source)}`,
  );
  options.stdout.write(`# OK: ${file ?? "no file"}\n${lines.join("\n")}\n`);
  return 0;
}
