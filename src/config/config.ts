// The configuration as the program sees it: its type and names follow from the schema.

import type { Field, Fields, Named, Section } from "./field.ts";
import type { schema } from "./schema.ts";

type CamelCase<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S;

type NameOf<K extends string, N> =
  N extends Field<unknown, infer Unit> ? `${CamelCase<K>}${Unit}` : CamelCase<K>;

type ValueOf<N> =
  N extends Field<infer T, string>
    ? T
    : N extends Section<infer F>
      ? ConfigOf<F>
      : N extends Named<infer S>
        ? Readonly<Record<string, ConfigOf<S["fields"]>>>
        : never;

type ConfigOf<F extends Fields> = {
  readonly [K in keyof F & string as NameOf<K, F[K]>]: ValueOf<F[K]>;
};

/** The configuration, complete and valid. Keys are those of the file in camelCase, durations with "Ms" appended. */
export type Config = ConfigOf<typeof schema.fields>;

/** The name in `Config` of a key: "relist_period" of a duration is "relistPeriodMs". */
export function nameOf(key: string, unit: string): string {
  return `${key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())}${unit}`;
}
