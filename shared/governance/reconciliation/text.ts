/** The runtime's own decoder: in Node, Deno and every browser, though not in the language's library types. */
declare const TextDecoder: new (
  label: string,
) => { decode(bytes: Uint8Array, options?: { stream: boolean }): string };
declare const TextEncoder: new () => { encode(text: string): Uint8Array };

const decoder = new TextDecoder("utf-8");
const encoder = new TextEncoder();

export const decodeUtf8 = (bytes: Uint8Array, start: number, end: number): string =>
  decoder.decode(bytes.subarray(start, end));
export const encodeUtf8 = (text: string): Uint8Array => encoder.encode(text);

/** Turns UTF-16, in pieces of any size, into UTF-8. */
export function utf16Reader(isLittleEndian: boolean): (chunk: Uint8Array) => Uint8Array {
  const wide = new TextDecoder(isLittleEndian ? "utf-16le" : "utf-16be");
  return (chunk) => encodeUtf8(wide.decode(chunk, { stream: true }));
}
