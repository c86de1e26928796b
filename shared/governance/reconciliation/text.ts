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

const YES =
  "true t yes y 1 wahr ja j vrai oui verdadero sí si verdadeiro sim vero waar prawda tak sant sand tosi истина да doğru evet pravda igaz adevărat";
const NO =
  "false f no n 0 falsch nein faux non falso não nao onwaar nee fałsz nie falskt falsk usann nej nei epätosi ei ложь нет yanlış hayır nepravda ne hamis nem fals nu";
const MEANS: ReadonlyMap<string, boolean> = new Map([
  ...YES.split(" ").map((word) => [word, true] as const),
  ...NO.split(" ").map((word) => [word, false] as const),
]);

/** True or false of a cell that says yes or no, in any language that a spreadsheet writes it in; null for anything else. */
export const yesOrNo = (text: string): boolean | null => MEANS.get(text.trim().toLowerCase()) ?? null;

/** Turns UTF-16, in pieces of any size, into UTF-8. */
export function utf16Reader(isLittleEndian: boolean): (chunk: Uint8Array) => Uint8Array {
  const wide = new TextDecoder(isLittleEndian ? "utf-16le" : "utf-16be");
  return (chunk) => encodeUtf8(wide.decode(chunk, { stream: true }));
}
