/** The bytes of a file for a reader that takes them at once. */
import { open } from "node:fs/promises";

const CHUNK_BYTES = 1 << 20;

/**
 * A file chunk by chunk, the next one on its way while one is worked on: a reader that is busy all the time never
 * waits for the disk. A chunk is valid until the next one is asked for, as its memory is used again.
 */
export async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  const handle = await open(path);
  const read = (into: Uint8Array) => {
    const done = handle.read(into, 0, into.length, null);
    // It may fail before anybody waits for it; the next read then throws.
    done.catch(() => undefined);
    return done;
  };
  let [current, next] = [new Uint8Array(CHUNK_BYTES), new Uint8Array(CHUNK_BYTES)];
  let reading = read(current);
  try {
    for (;;) {
      const { bytesRead } = await reading;
      if (bytesRead === 0) return;
      reading = read(next);
      yield current.subarray(0, bytesRead);
      [current, next] = [next, current];
    }
  } finally {
    await reading.catch(() => undefined);
    await handle.close();
  }
}
