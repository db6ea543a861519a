// Whether a message keeps the rules of the contract. Every violation is told, with the field, the value and the limit.
import type { DescField, DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import { create, isMessage, ScalarType } from "@bufbuild/protobuf";
import type { Path } from "@bufbuild/protobuf/reflect";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { DurationSchema, durationMs } from "@bufbuild/protobuf/wkt";
import type { Violation } from "@bufbuild/protovalidate";
import { createValidator } from "@bufbuild/protovalidate";
import type { FieldViolation } from "../errors.ts";
import { SandboxdError } from "../errors.ts";
import { shortened } from "./error-encoding.ts";

const valueMaxLength = 64;
const depthMax = 32;

/** Throws INVALID_FIELD with every violation of the contract's rules. */
export type MessageCheck = (desc: DescMessage, message: Message) => void;

/** Checks the protovalidate rules. The rules of a type are compiled when it is first seen, and kept. */
export function createRuleCheck(): MessageCheck {
  const validator = createValidator();
  return (desc, message) => {
    const result = validator.validate(desc, message as MessageShape<typeof desc>);
    if (result.kind === "valid") {
      return;
    }
    if (result.kind === "error") {
      throw result.error;
    }
    const fields = result.violations.map((violation) => describe(violation, message));
    const [first] = fields;
    const more = fields.length > 1 ? ` (and ${fields.length - 1} more)` : "";
    throw new SandboxdError("INVALID_FIELD", `${first?.field}: ${first?.description}${more}`, { fields });
  };
}

/**
 * Has the rules of these types compiled, one type a turn of the event loop: altogether that takes a tenth of a second or
 * two, which no first caller should wait for.
 */
export async function compileRules(check: MessageCheck, types: readonly DescMessage[]): Promise<void> {
  for (const type of types) {
    await new Promise((resolve) => setImmediate(resolve));
    try {
      check(type, create(type));
    } catch (error) {
      // an empty message breaks rules; that they could be asked is all that was wanted
      if (!(error instanceof SandboxdError)) throw error;
    }
  }
}

/**
 * Throws MALFORMED_MESSAGE if the message, at any depth, has a field that the contract does not know. In a call that
 * changes something, such a field is a wish (perhaps for more isolation) that would silently not be granted.
 */
export function assertNoUnknownFields(desc: DescMessage, message: Message): void {
  const found = unknownField(desc, message, "", 0);
  if (found !== undefined) {
    throw new SandboxdError(
      "MALFORMED_MESSAGE",
      `The message has a field that is not in the contract: ${found}.`,
      {
        fields: [{ field: found, description: "is not in this daemon's contract" }],
        hint: "Leave the field out, or upgrade the daemon.",
      },
    );
  }
}

function unknownField(desc: DescMessage, message: Message, at: string, depth: number): string | undefined {
  const [unknown] = message.$unknown ?? [];
  if (unknown !== undefined || depth > depthMax) {
    return `${at}${unknown === undefined ? "(nested too deeply)" : `field ${unknown.no}`}`;
  }
  for (const field of desc.fields) {
    for (const [child, name] of children(field, fieldValue(field, message))) {
      const found = unknownField(child.desc, child.message, `${at}${name}.`, depth + 1);
      if (found !== undefined) {
        return found;
      }
    }
  }
  return undefined;
}

type Child = readonly [{ readonly desc: DescMessage; readonly message: Message }, string];

function children(field: DescField, value: unknown): Child[] {
  const desc = field.message;
  if (desc === undefined || typeof value !== "object" || value === null) {
    return [];
  }
  const entries: (readonly [unknown, string])[] =
    field.fieldKind === "list"
      ? Object.entries(value).map(([index, item]) => [item, `${field.name}[${index}]`])
      : field.fieldKind === "map"
        ? Object.entries(value).map(([key, item]) => [
            item,
            `${field.name}["${shortened(key, valueMaxLength)}"]`,
          ])
        : [[value, field.name]];
  return entries.flatMap(([item, name]): Child[] =>
    isMessage(item) ? [[{ desc, message: item }, name]] : [],
  );
}

function fieldValue(field: DescField, message: Message): unknown {
  const record = message as unknown as Readonly<Record<string, unknown>>;
  if (field.oneof === undefined) {
    return record[field.localName];
  }
  const chosen = record[field.oneof.localName] as { readonly case?: string; readonly value?: unknown };
  return chosen.case === field.localName ? chosen.value : undefined;
}

function describe(violation: Violation, message: Message): FieldViolation {
  const field = pathToString(violation.field);
  const value = violation.forKey ? "the key " : shownValue(violation.field, message);
  return { field, description: value === undefined ? violation.message : `${value}${violation.message}` };
}

/**
 * What the caller sent, where it helps: singular numbers, booleans and strings. Values in lists and maps (arguments,
 * environment) may be secrets and errors end up in logs, so of those only the length is told.
 */
function shownValue(path: Path, message: Message): string | undefined {
  let value: unknown = message;
  let singular = true;
  let last: DescField | undefined;
  for (const step of path) {
    if (step.kind === "field" && isMessage(value)) {
      value = fieldValue(step, value);
      last = step;
    } else if (step.kind === "list_sub" && Array.isArray(value)) {
      value = value[step.index];
      singular = false;
    } else if (step.kind === "map_sub" && typeof value === "object" && value !== null) {
      value = (value as Record<string, unknown>)[String(step.key)];
      singular = false;
    } else {
      return undefined;
    }
  }
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") {
    return `${value} `;
  }
  if (isMessage(value, DurationSchema)) {
    return `${durationMs(value) / 1000}s `;
  }
  if (typeof value === "string") {
    return singular && last?.scalar === ScalarType.STRING
      ? `${JSON.stringify(shortened(value, valueMaxLength))} `
      : `(${Buffer.byteLength(value)} bytes) `;
  }
  return undefined;
}
