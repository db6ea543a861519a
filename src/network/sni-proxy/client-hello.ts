// The server name in the first message of a TLS client (RFC 8446, 4.1.2; RFC 6066, 3). Strict: what a server could read in another way
// than this does is no hello, since whoever sends it could have one name judged and another one served.

export type ClientHello =
  /** The beginning of one. */
  | { readonly kind: "incomplete" }
  /** `serverName`: in lower case; absent if it names none. */
  | { readonly kind: "hello"; readonly serverName?: string }
  | { readonly kind: "unreadable"; readonly why: string };

/** With keys of post-quantum algorithms a hello has some 1,800 bytes. */
export const maxHelloBytes = 16 * 1_024;

const recordHeaderBytes = 5;
const handshakeHeaderBytes = 4;
const maxFragmentBytes = 2 ** 14;
const randomBytes = 32;
const maxSessionIdBytes = 32;

const handshakeRecord = 22;
const clientHello = 1;
const hostName = 0;
const serverNameExtension = 0;
/** RFC 9849. Under it another name is hidden, which nobody but the server can read. */
const encryptedHelloExtension = 0xfe0d;

const incomplete: ClientHello = { kind: "incomplete" };

class Unreadable extends Error {}

/** Reads what a client has sent so far. */
export function readClientHello(sent: Buffer): ClientHello {
  try {
    const message = messageIn(sent);
    if (message === undefined) {
      return sent.length < maxHelloBytes ? incomplete : unreadable("is too long");
    }
    const serverName = nameIn(message);
    return serverName === undefined ? { kind: "hello" } : { kind: "hello", serverName };
  } catch (error) {
    if (error instanceof Unreadable) return unreadable(error.message);
    throw error;
  }
}

const unreadable = (why: string): ClientHello => ({ kind: "unreadable", why });

/** The body of the hello, which may come in several records; undefined while it is not all there. */
function messageIn(sent: Buffer): Buffer | undefined {
  const fragments: Buffer[] = [];
  let length = 0;
  let at = 0;
  while (sent.length - at >= recordHeaderBytes) {
    if (sent[at] !== handshakeRecord || sent[at + 1] !== 3) throw new Unreadable("is not TLS");
    const size = sent.readUInt16BE(at + 3);
    if (size === 0 || size > maxFragmentBytes) throw new Unreadable("has a record of a wrong length");
    const fragment = sent.subarray(at + recordHeaderBytes, at + recordHeaderBytes + size);
    fragments.push(fragment);
    length += fragment.length;
    const whole = wholeOf(Buffer.concat(fragments, length));
    if (whole !== undefined) return whole;
    if (fragment.length < size) return undefined;
    at += recordHeaderBytes + size;
  }
  if (sent.length > at && sent[at] !== handshakeRecord) throw new Unreadable("is not TLS");
  return undefined;
}

function wholeOf(message: Buffer): Buffer | undefined {
  if (message.length > 0 && message[0] !== clientHello) throw new Unreadable("does not begin with a hello");
  if (message.length < handshakeHeaderBytes) return undefined;
  const end = handshakeHeaderBytes + message.readUIntBE(1, 3);
  if (end > maxHelloBytes) throw new Unreadable("is too long");
  if (message.length < end) return undefined;
  if (message.length > end) throw new Unreadable("has something behind it in its record");
  return message.subarray(handshakeHeaderBytes, end);
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
