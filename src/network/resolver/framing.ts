// DNS messages in a stream: each after its length in two bytes (RFC 1035, 4.2.2).

const lengthBytes = 2;

export function framed(message: Buffer): Buffer {
  const frame = Buffer.alloc(lengthBytes + message.length);
  frame.writeUInt16BE(message.length);
  message.copy(frame, lengthBytes);
  return frame;
}

/** Takes a stream's bytes as they come, and calls with each message. False once one is announced that is longer than it may be. */
export function createUnframing(
  maxBytes: number,
  onMessage: (message: Buffer) => void,
): (chunk: Buffer) => boolean {
  let rest = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    while (rest.length >= lengthBytes) {
      const length = rest.readUInt16BE(0);
      if (length > maxBytes) return false;
      if (rest.length < lengthBytes + length) break;
      onMessage(rest.subarray(lengthBytes, lengthBytes + length));
      rest = rest.subarray(lengthBytes + length);
    }
    return true;
  };
}
