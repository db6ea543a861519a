// The server name in the first message of a TLS client (RFC 8446, 4.1.2; RFC 6066, 3). Strict: what a server could read in another way
// than this does is no hello, since whoever sends it could have one name judged and another one served.

export type ClientHello =
  /** The beginning of one, which cannot be told before there are so many bytes. */
  | { readonly kind: "incomplete"; readonly neededBytes: number }
  /** `serverName`: in lower case; absent if it names none. */
  | { readonly kind: "hello"; readonly serverName?: string }
  | { readonly kind: "unreadable"; readonly why: string };

/** With keys of post-quantum algorithms a hello has some 1,800 bytes. */
export const maxHelloBytes = 16 * 1_024;

const recordHeaderBytes = 5;
const handshakeHeaderBytes = 4;
/** Clients send one, those with large keys two, and those that hide from somebody on their way some more. */
const mostRecords = 32;
const randomBytes = 32;
const maxSessionIdBytes = 32;

const handshakeRecord = 22;
const clientHello = 1;
const hostName = 0;
const serverNameExtension = 0;
/** RFC 9849. Under it another name is hidden, which nobody but the server can read. */
const encryptedHelloExtension = 0xfe0d;

class Unreadable extends Error {}

/** Reads what a client has sent so far. */
export function readClientHello(sent: Buffer): ClientHello {
  try {
    const message = messageIn(sent);
    if (typeof message === "number") return { kind: "incomplete", neededBytes: message };
    const serverName = nameIn(message);
    return serverName === undefined ? { kind: "hello" } : { kind: "hello", serverName };
  } catch (error) {
    if (error instanceof Unreadable) return { kind: "unreadable", why: error.message };
    throw error;
  }
}

/** The body of the hello, which may come in several records; while it is not all there, how many bytes have to be. */
function messageIn(sent: Buffer): Buffer | number {
  const fragments: Buffer[] = [];
  let length = 0;
  let total: number | undefined;
  for (let at = 0; ; ) {
    const body = at + recordHeaderBytes;
    if (sent.length > at && sent[at] !== handshakeRecord) throw new Unreadable("is not TLS");
    if (sent.length < body) return body;
    if (sent[at + 1] !== 3) throw new Unreadable("is not TLS");
    const end = body + sent.readUInt16BE(at + 3);
    if (end === body) throw new Unreadable("has a record of a wrong length");
    if (end > maxHelloBytes) throw new Unreadable("is too long");
    if (sent.length < end) return end;
    if (fragments.length === mostRecords) throw new Unreadable("comes in too many pieces");
    fragments.push(sent.subarray(body, end));
    length += end - body;
    total ??= length < handshakeHeaderBytes ? undefined : messageBytes(Buffer.concat(fragments));
    if (total !== undefined && length > total) throw new Unreadable("has something behind it in its record");
    if (length === total) return Buffer.concat(fragments).subarray(handshakeHeaderBytes);
    at = end;
  }
}

/** With its header, from which it is read. */
function messageBytes(begun: Buffer): number {
  if (begun[0] !== clientHello) throw new Unreadable("does not begin with a hello");
  return handshakeHeaderBytes + begun.readUIntBE(1, 3);
}

function nameIn(message: Buffer): string | undefined {
  const hello = reader(message);
  if (hello.number(1) !== 3) throw new Unreadable("is of an unknown version");
  hello.skip(1 + randomBytes);
  if (hello.vector(1).length > maxSessionIdBytes) throw new Unreadable("has a wrong session id");
  if (hello.vector(2).length < 2) throw new Unreadable("has no cipher suites");
  if (hello.vector(1).length < 1) throw new Unreadable("has no compression methods");
  if (hello.isAtEnd()) return undefined;
  const extensions = reader(hello.vector(2));
  hello.end();
  const seen = new Set<number>();
  let name: string | undefined;
  while (!extensions.isAtEnd()) {
    const type = extensions.number(2);
    const data = extensions.vector(2);
    if (seen.has(type)) throw new Unreadable("has an extension twice");
    seen.add(type);
    if (type === encryptedHelloExtension) throw new Unreadable("hides another name (ECH)");
    if (type === serverNameExtension) name = nameOf(data);
  }
  return name;
}

/** One name of the one type that there is. */
function nameOf(extension: Buffer): string {
  const list = reader(extension);
  const names = reader(list.vector(2));
  list.end();
  if (names.number(1) !== hostName) throw new Unreadable("has a name of an unknown type");
  const name = names.vector(2).toString("latin1").toLowerCase();
  names.end();
  if (!/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(name)) throw new Unreadable("has a name that is none");
  return name;
}

/** Reads from the beginning to the end; what is not there makes it unreadable. */
function reader(bytes: Buffer) {
  let at = 0;
  const take = (length: number): Buffer => {
    if (length > bytes.length - at) throw new Unreadable("ends before its time");
    at += length;
    return bytes.subarray(at - length, at);
  };
  return {
    skip: (length: number) => void take(length),
    /** Unsigned, of so many bytes. */
    number: (length: number) => take(length).readUIntBE(0, length),
    /** What follows a length of so many bytes. */
    vector: (lengthBytes: number) => take(take(lengthBytes).readUIntBE(0, lengthBytes)),
    isAtEnd: () => at === bytes.length,
    end() {
      if (at < bytes.length) throw new Unreadable("has something behind its end");
    },
  };
}
