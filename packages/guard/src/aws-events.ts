/** AWS's binary event stream (application/vnd.amazon.eventstream), in which Bedrock answers. */
import { isRecord } from "../../../shared/governance/values.ts";

/** One event of a stream: its text (or its bytes) as it came, and what the guard reads of it. */
export interface SentEvent {
  readonly raw: string | Uint8Array;
  readonly json: unknown;
}

/** Bytes that the values of headers take, by their type; null for those that carry their own length. */
const headerSizes: readonly (number | null)[] = [0, 0, 1, 2, 4, 8, null, null, 8, 16];

/** The name that a frame gives to its event, `error` for an exception; null where it has none. */
function nameOf(frame: DataView, end: number): string | null {
  const text = (start: number, length: number): string =>
    new TextDecoder().decode(new Uint8Array(frame.buffer, frame.byteOffset + start, length));
  for (let at = 12; at < end; ) {
    const nameLength = frame.getUint8(at);
    const name = text(at + 1, nameLength);
    const type = frame.getUint8(at + 1 + nameLength);
    at += 2 + nameLength;
    const size = headerSizes[type];
    if (size === undefined) return null;
    const length = size ?? frame.getUint16(at);
    if (size === null) at += 2;
    if (name === ":event-type") return text(at, length);
    if (name === ":exception-type") return "error";
    at += length;
  }
  return null;
}

/** The content of a frame, as AWS's SDK gives it: `{[event]: …}`; of InvokeModel the model's own chunk. */
function jsonOf(bytes: Uint8Array): unknown {
  try {
    const frame = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const headersEnd = 12 + frame.getUint32(4);
    const said: unknown = JSON.parse(new TextDecoder().decode(bytes.subarray(headersEnd, bytes.length - 4)));
    if (isRecord(said) && typeof said["bytes"] === "string") {
      const chunk = Uint8Array.from(atob(said["bytes"]), (sign) => sign.charCodeAt(0));
      return JSON.parse(new TextDecoder().decode(chunk));
    }
    const name = nameOf(frame, headersEnd);
    return name === null ? said : { [name]: said };
  } catch {
    // What cannot be read is passed on all the same.
    return null;
  }
}

/** A frame has its length before it: at least what is around its message, at most what AWS sends. */
const [shortest, longest] = [16, 16_777_216];

/** Takes whole frames off the bytes that came; what is no frame is left as it is. */
function splitFrames(bytes: Uint8Array): readonly [events: SentEvent[], rest: Uint8Array] {
  const events: SentEvent[] = [];
  let start = 0;
  while (bytes.length - start >= 4) {
    const length = new DataView(bytes.buffer, bytes.byteOffset + start).getUint32(0);
    if (length < shortest || length > longest) {
      events.push({ raw: bytes.subarray(start), json: null });
      return [events, bytes.subarray(bytes.length)];
    }
    if (bytes.length - start < length) break;
    const raw = bytes.subarray(start, start + length);
    events.push({ raw, json: jsonOf(raw) });
    start += length;
  }
  return [events, bytes.subarray(start)];
}

/** Events as they come, of bytes that come in any pieces. */
export async function* framesIn(body: ReadableStream<Uint8Array>): AsyncGenerator<SentEvent> {
  const reader = body.getReader();
  let rest = new Uint8Array();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const joined = new Uint8Array(rest.length + value.length);
      joined.set(rest);
      joined.set(value, rest.length);
      const [events, left] = splitFrames(joined);
      rest = new Uint8Array(left);
      yield* events;
    }
    if (rest.length > 0) yield { raw: rest, json: null };
  } finally {
    // Also where the reader has left: the provider is to stop.
    await reader.cancel().catch(() => undefined);
  }
}
