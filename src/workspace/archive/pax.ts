// Extended headers (pax): records "LENGTH KEY=VALUE\n", which tell more than the block of a header can. Values are bytes, as names.

/** Undefined unless the bytes are records and nothing else. The last of several with one key counts; an empty value takes it back. */
export function decodePax(bytes: Buffer): ReadonlyMap<string, string> | undefined {
  const text = bytes.toString("latin1");
  const records = new Map<string, string>();
  for (let start = 0; start < text.length; ) {
    const space = text.indexOf(" ", start);
    const digits = space === -1 ? "" : text.slice(start, space);
    if (!/^[1-9]\d{0,8}$/.test(digits)) return undefined;
    const end = start + Number(digits);
    const record = text.slice(space + 1, end - 1);
    const equals = record.indexOf("=");
    if (end > text.length || text[end - 1] !== "\n" || equals < 1) return undefined;
    const [key, value] = [record.slice(0, equals), record.slice(equals + 1)];
    if (value === "") records.delete(key);
    else records.set(key, value);
    start = end;
  }
  return records;
}

export function encodePax(records: ReadonlyMap<string, string>): Buffer {
  return Buffer.from([...records].map(([key, value]) => recordOf(`${key}=${value}`)).join(""), "latin1");
}

function recordOf(text: string): string {
  // the length counts its own digits
  const rest = text.length + 2;
  const guess = rest + `${rest}`.length;
  return `${rest + `${guess}`.length} ${text}\n`;
}
