/**
 * Folding, words, complexity and topic, exactly as docs/RULES.md writes them out, so that every server and
 * runtime reads the same message the same way.
 */

/** Upper-case letters of these ranges whose lower case is one other code point: [first, last] inclusive. */
const foldRanges = [
  [0xc0, 0xde],
  [0x100, 0x17f],
  [0x370, 0x3ff],
  [0x400, 0x4ff],
] as const;

/** Code point of each letter that folding lowers, beyond ASCII, with its lower case. */
export const foldLetters: ReadonlyMap<number, number> = new Map(
  foldRanges.flatMap(([first, last]) => {
    const pairs: [number, number][] = [];
    for (let code = first; code <= last; code++) {
      const lower = String.fromCodePoint(code).toLowerCase();
      const lowerCode = lower.codePointAt(0) ?? code;
      if (lower.length === 1 && lowerCode !== code) pairs.push([code, lowerCode]);
    }
    return pairs;
  }),
);

const plainAscii = /^[\0-\x7f]*$/;
const upperBeyondAscii = /[\u00c0-\u00de\u0100-\u017f\u0370-\u03ff\u0400-\u04ff]/g;

/** NFKC, then lower case of ASCII and of `foldLetters`. Not meant to be applied twice. */
export function foldText(text: string): string {
  // ASCII is its own NFKC, and there the two lower cases are one: the common case costs one scan.
  if (plainAscii.test(text)) return text.toLowerCase();
  return text
    .normalize("NFKC")
    .replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
    .replace(upperBeyondAscii, (letter) => {
      const lower = foldLetters.get(letter.charCodeAt(0));
      return lower === undefined ? letter : String.fromCharCode(lower);
    });
}

const separators =
  /[\0-/:-`{-\x7f\u0080-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u00d7\u00f7\u2000-\u206f\u3000-\u303f\ufe30-\ufe4f\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]+/g;

/**
 * Folded text as phrases are looked for in it: separators become single spaces, one space at both ends.
 * Text without a word gives a single space.
 */
export function phraseText(folded: string): string {
  return ` ${folded} `.replace(separators, " ");
}

const whiteSpace = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/g;

/** Runs of white space become one space; both ends are trimmed. */
export function collapseSpace(text: string): string {
  const collapsed = text.replace(whiteSpace, " ");
  const start = collapsed.startsWith(" ") ? 1 : 0;
  const end = collapsed.length > start && collapsed.endsWith(" ") ? collapsed.length - 1 : collapsed.length;
  return collapsed.slice(start, end);
}

/** The text by which two messages count as identical. Its hash is kept, never the text. */
export function identityText(message: string): string {
  return collapseSpace(foldText(message));
}

/** Words between white space, of the message as given. */
export function countWords(message: string): number {
  const collapsed = collapseSpace(message);
  return collapsed === "" ? 0 : collapsed.split(" ").length;
}

/** Unicode code points. */
export function countCharacters(message: string): number {
  let count = message.length;
  // A surrogate pair is one code point in two units.
  for (const pair of message.matchAll(/[\ud800-\udbff][\udc00-\udfff]/g)) count -= pair[0].length - 1;
  return count;
}

/** The first `words` words of a message, joined by single spaces; the message itself when it is shorter. */
export function truncateToWords(message: string, words: number): string {
  const parts = collapseSpace(message).split(" ");
  return parts.length <= words ? message : parts.slice(0, words).join(" ");
}

/** How many different phrases of a list occur in a message. */
function countPhrases(padded: string, phrases: readonly string[]): number {
  const found = new Set<string>();
  for (const phrase of phrases) {
    const looked = phraseText(foldText(phrase));
    if (looked !== " " && padded.includes(looked)) found.add(looked);
  }
  return found.size;
}

/**
 * Complexity of a message, 0 to 1 in thousandths: 0.2 for each different phrase of `complexityWords` in it,
 * and up to 0.4 for its length. Source: docs/RULES.md, "Complexity".
 */
export function scoreComplexity(message: string, complexityWords: readonly string[]): number {
  const phrases = countPhrases(phraseText(foldText(message)), complexityWords);
  const forLength = Math.min(400, Math.floor((countCharacters(message) * 2) / 3));
  return Math.min(1000, 200 * phrases + forLength) / 1000;
}

/** A topic, and the words and phrases that make a message one of it. */
export interface Topic {
  readonly topic: string;
  readonly words: readonly string[];
}

/** The first topic with a phrase that occurs in the message, or null. */
export function findTopic(message: string, topics: readonly Topic[]): string | null {
  const padded = phraseText(foldText(message));
  for (const { topic, words } of topics) if (countPhrases(padded, words) > 0) return topic;
  return null;
}

/** Tokens a message is thought to need: a token for four characters, and the reply. Source: docs/RULES.md, step 6. */
export function estimateFromLength(message: string, replyTokens: number): number {
  return Math.ceil(countCharacters(message) / 4) + replyTokens;
}

/** Facts that come from the message alone. All null (identical and rapid counts aside) without a message. */
export interface MessageFacts {
  readonly message: string | null;
  readonly message_words: number | null;
  readonly message_characters: number | null;
  readonly complexity: number | null;
  readonly topic: string | null;
}

/**
 * Reads what a message alone tells. `complexity` given by the caller wins over the computed one, and is kept
 * to three decimals (half up).
 */
export function readMessage(
  message: string | null,
  settings: { readonly complexity_words?: readonly string[]; readonly topics?: readonly Topic[] },
  complexity: number | null = null,
): MessageFacts {
  const given = complexity === null ? null : roundToThousandths(complexity);
  if (message === null)
    return { message: null, message_words: null, message_characters: null, complexity: given, topic: null };
  return {
    message: foldText(message),
    message_words: countWords(message),
    message_characters: countCharacters(message),
    complexity: given ?? scoreComplexity(message, settings.complexity_words ?? []),
    topic: findTopic(message, settings.topics ?? []),
  };
}

/** Decimal rounding, half up, of a number from 0 to 1 as its shortest digits say (0.0005 is 0.001). */
function roundToThousandths(value: number): number {
  const [mantissa = "", exponent = "0"] = value.toExponential().split("e");
  const digits = mantissa.replace(".", "");
  // value = 0.digits × 10^(exponent + 1); thousandths = digits shifted by exponent + 4 places.
  const places = Number(exponent) + 4;
  if (places < 0) return 0;
  const padded = digits.padEnd(places + 1, "0");
  const whole = Number(padded.slice(0, places) || "0");
  return (whole + (Number(padded[places]) >= 5 ? 1 : 0)) / 1000;
}
