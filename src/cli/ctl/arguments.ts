// Reads options as the Docker CLI does: short ones can be joined, values follow after a space or "=", "--" ends them; and where a
// command of the sandbox's comes last, the first word that is no option ends them too.

/** What an option takes: nothing, a value, or a value each time it is given. */
export type OptionKind = "flag" | "value" | "list";

export interface OptionSpec {
  readonly kind: OptionKind;
  readonly short?: string;
  /** The value, in the help: "N". */
  readonly value?: string;
  readonly help: string;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** Options by their long name, and the words that are none. */
export interface Arguments {
  readonly flags: ReadonlySet<string>;
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly words: readonly string[];
}

/** Told on standard error, with exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export interface ParseOptions {
  readonly specs: OptionSpecs;
  /** Whether options may follow after words. Default: true. */
  readonly interspersed?: boolean;
}

/** @throws UsageError */
export function parseArguments(
  argv: readonly string[],
  { specs, interspersed = true }: ParseOptions,
): Arguments {
  const flags = new Set<string>();
  const values = new Map<string, string[]>();
  const words: string[] = [];
  const rest = [...argv];

  function take(name: string, spec: OptionSpec, shown: string, attached: string | undefined): void {
    if (spec.kind === "flag") {
      if (attached === undefined || attached === "true") flags.add(name);
      else if (attached === "false") flags.delete(name);
      else throw new UsageError(`${shown} takes no value`);
      return;
    }
    const value = attached ?? rest.shift();
    if (value === undefined) throw new UsageError(`${shown} needs a value`);
    values.set(name, spec.kind === "list" ? [...(values.get(name) ?? []), value] : [value]);
  }

  while (rest.length > 0) {
    const word = rest.shift() ?? "";
    if (word === "--") {
      words.push(...rest.splice(0));
    } else if (word.startsWith("--")) {
      const [, name = "", attached] = /^--([^=]*)(?:=(.*))?$/s.exec(word) ?? [];
      const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
      if (spec === undefined) throw new UsageError(`unknown option --${name}`);
      take(name, spec, `--${name}`, attached);
    } else if (word.startsWith("-") && word.length > 1) {
      takeShort(word.slice(1));
    } else {
      words.push(word);
      if (!interspersed) words.push(...rest.splice(0));
    }
  }
  return { flags, values, words };

  /** "-it", "-n5", "-n=5". */
  function takeShort(letters: string): void {
    for (let at = 0; at < letters.length; at += 1) {
      const letter = letters.charAt(at);
      const found = Object.entries(specs).find(([, { short }]) => short === letter);
      if (found === undefined) throw new UsageError(`unknown option -${letter}`);
      const [name, spec] = found;
      if (spec.kind === "flag") {
        take(name, spec, `-${letter}`, undefined);
        continue;
      }
      const attached = letters.slice(at + 1).replace(/^=/, "");
      take(name, spec, `-${letter}`, at + 1 < letters.length ? attached : undefined);
      return;
    }
  }
}

/** The value that was given last. */
export function optionValue({ values }: Arguments, name: string): string | undefined {
  return values.get(name)?.at(-1);
}

/** "K=V" words as a map; `bare` says what a word without "=" means. @throws UsageError */
export function pairsOf(
  args: Arguments,
  name: string,
  bare: (key: string) => string | undefined = () => undefined,
): Record<string, string> {
  const pairs: Record<string, string> = {};
  for (const word of args.values.get(name) ?? []) {
    const [, key = "", value] = /^([^=]*)(?:=(.*))?$/s.exec(word) ?? [];
    const meant = value ?? bare(key);
    if (key === "" || meant === undefined)
      throw new UsageError(`--${name} ${JSON.stringify(word)}: expected KEY=VALUE`);
    Object.defineProperty(pairs, key, { value: meant, enumerable: true, writable: true, configurable: true });
  }
  return pairs;
}
