/** The body of a request, as far as the guard must read it: whatever it is given as. */

/** Bytes of a streamed body that are kept to be judged: more than a provider takes (Anthropic 32 MB, Gemini 20). */
const longestBody = 64 * 1024 * 1024;

/** What a request says: a text or a form; null where it is neither. */
interface RequestBody {
  readonly said: string | FormData | null;
  /** The bytes of a stream, which can be read only once: they are to be sent in its place. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
}

/** A stream of the web's, or what else `fetch` takes for one (Node's streams). */
type Stream = ReadableStream<unknown> | AsyncIterable<unknown>;

const isStream = (body: unknown): body is Stream =>
  body instanceof ReadableStream ||
  (typeof body === "object" && body !== null && Symbol.asyncIterator in body && !(body instanceof FormData));

/** The parts of a stream, until it ends or its caller leaves; then the stream is told to end. */
async function* partsOf(stream: Stream, signal: AbortSignal | null): AsyncGenerator<unknown> {
  signal?.throwIfAborted();
  const reader = stream instanceof ReadableStream ? stream.getReader() : null;
  const iterator = stream instanceof ReadableStream ? null : stream[Symbol.asyncIterator]();
  let leave = (): void => undefined;
  const left = new Promise<never>((_resolve, reject) => {
    leave = () => reject(signal?.reason);
  });
  // Nobody may wait for it.
  left.catch(() => undefined);
  signal?.addEventListener("abort", leave, { once: true });
  try {
    for (;;) {
      const next = await Promise.race([(reader ? reader.read() : iterator?.next()) ?? left, left]);
      if (next.done) return;
      yield next.value;
    }
  } finally {
    signal?.removeEventListener("abort", leave);
    const ended = reader ? reader.cancel() : Promise.resolve(iterator?.return?.());
    ended.catch(() => undefined);
  }
}

async function readStream(stream: Stream, signal: AbortSignal | null): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of partsOf(stream, signal)) {
    const bytes = typeof part === "string" ? new TextEncoder().encode(part) : part;
    if (!(bytes instanceof Uint8Array)) throw new TypeError("A streamed body is made of bytes (Uint8Array).");
    length += bytes.length;
    if (length > longestBody)
      throw new TypeError(
        `guardFetch reads a streamed body before it is sent, at most ${longestBody / 1_048_576} MB of it: give a longer one as text, bytes or a form.`,
      );
    parts.push(bytes);
  }
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Reads the body of a request. Rejects as `fetch` does: where the caller leaves, or a stream breaks or was read before. */
export async function readBody(
  body: unknown,
  contentType: string | null,
  signal: AbortSignal | null,
): Promise<RequestBody> {
  if (typeof body === "string" || body instanceof FormData) return { said: body };
  if (body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body))
    return { said: await new Response(body as BodyInit).text() };
  if (!isStream(body)) return { said: null };
  const bytes = await readStream(body, signal);
  if (!/^multipart\/form-data/i.test(contentType ?? ""))
    return { said: new TextDecoder().decode(bytes), bytes };
  const form = new Response(bytes, { headers: { "content-type": contentType ?? "" } }).formData();
  return { said: await form.catch(() => null), bytes };
}
