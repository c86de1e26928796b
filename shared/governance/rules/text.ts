/**
 * Folding, words, complexity and topic, exactly as docs/RULES.md writes them out, so that every server and
 * runtime reads the same message the same way.
 */

import {
  characterClass,
  combiningMarks,
  ideographs,
  invisibles,
  separators,
  southEastAsianLetters,
  whiteSpaces,
} from "./characters.ts";

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

/** Characters of a message that are judged; so many are also kept of what they normalise to. */
export const judgedCharacters = 20_000;
/** Combining marks in a row that are kept. Source: Unicode's stream-safe text format (UAX #15, section 13). */
const marksInARow = 30;

const inClass = (ranges: string): string => `[${characterClass(ranges)}]`;
const mark = inClass(combiningMarks);
const white = inClass(whiteSpaces);
const ideograph = inClass(ideographs);
const southEastAsian = inClass(southEastAsianLetters);
const unspaced = inClass(`${ideographs} ${southEastAsianLetters}`);

const plainAscii = /^[\0-\x7f]*$/;
const invisible = new RegExp(`${inClass(invisibles)}+`, "gu");
const markRuns = new RegExp(`(${mark}{${marksInARow}})${mark}+`, "gu");
const upperBeyondAscii = /[\u00c0-\u00de\u0100-\u017f\u0370-\u03ff\u0400-\u04ff]/g;

/** The first `count` code points of a text. */
function firstCharacters(text: string, count: number): string {
  if (text.length <= count) return text;
  let end = 0;
  for (let seen = 0; seen < count && end < text.length; seen++)
    end += (text.codePointAt(end) as number) > 0xffff ? 2 : 1;
  return text.slice(0, end);
}

/**
 * What is judged of a text: its first characters without invisible ones, stream-safe, in NFKC, in lower case (ASCII and
 * `foldLetters`). Not meant to be applied twice. Takes time that grows at most linearly with the text.
 */
export function foldText(text: string): string {
  const judged = firstCharacters(text, judgedCharacters);
  // ASCII is its own NFKC, and there the two lower cases are one: the common case costs one scan.
  if (plainAscii.test(judged)) return judged.toLowerCase();
  const seen = judged.replace(invisible, "").replace(markRuns, "$1");
  return firstCharacters(seen.normalize("NFKC"), judgedCharacters)
    .replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
    .replace(upperBeyondAscii, (letter) => {
      const lower = foldLetters.get(letter.charCodeAt(0));
      return lower === undefined ? letter : String.fromCharCode(lower);
    });
}

const separatorRuns = new RegExp(`${inClass(separators)}+`, "gu");
const anyUnspaced = new RegExp(unspaced, "u");
const unspacedRuns = new RegExp(`${unspaced}+`, "gu");
const unspacedEnds = new RegExp(`^ (?=${unspaced})|(?<=${unspaced}) $`, "gu");

/**
 * Folded text as phrases are looked for in it: separators become single spaces, scripts without spaces are separated
 * from others, one space is at both ends. Text without a word gives a single space.
 */
export function phraseText(folded: string): string {
  const apart = anyUnspaced.test(folded) ? folded.replace(unspacedRuns, " $& ") : folded;
  return ` ${apart} `.replace(separatorRuns, " ");
}

/** A phrase as it is looked for in a `phraseText`; a single space for one without a word. */
export function soughtPhrase(phrase: string): string {
  return phraseText(foldText(phrase)).replace(unspacedEnds, "");
}

const whiteRuns = new RegExp(`${white}+`, "gu");

/** Runs of white space become one space; both ends are trimmed. */
export function collapseSpace(text: string): string {
  const collapsed = text.replace(whiteRuns, " ");
  const start = collapsed.startsWith(" ") ? 1 : 0;
  const end = collapsed.length > start && collapsed.endsWith(" ") ? collapsed.length - 1 : collapsed.length;
  return collapsed.slice(start, end);
}

/**
 * The text by which two messages count as identical: what is judged of it folded and collapsed, the rest as given. Its
 * hash is kept, never the text.
 */
export function identityText(message: string): string {
  return collapseSpace(foldText(message)) + message.slice(firstCharacters(message, judgedCharacters).length);
}

const punctuation = `[${inClass(separators)}--${white}]`;
const wordPattern = new RegExp(
  [
    `${punctuation}*${ideograph}${punctuation}*`,
    `${punctuation}*${southEastAsian}{1,5}${punctuation}*`,
    `[^${characterClass(whiteSpaces, ideographs, southEastAsianLetters)}]+`,
  ].join("|"),
  "gv",
);

/** Words of the message as given. Source: docs/RULES.md, "Words". */
export function countWords(message: string): number {
  const collapsed = collapseSpace(message);
  if (!anyUnspaced.test(collapsed)) return collapsed === "" ? 0 : collapsed.split(" ").length;
  let words = 0;
  for (const _ of collapsed.matchAll(wordPattern)) words++;
  return words;
}

/** Unicode code points. */
export function countCharacters(message: string): number {
  let count = message.length;
  // A surrogate pair is one code point in two units.
  for (const pair of message.matchAll(/[\ud800-\udbff][\udc00-\udfff]/g)) count -= pair[0].length - 1;
  return count;
}

/** A message up to the end of its n-th word, white space collapsed; the message itself when it has no more words. */
export function truncateToWords(message: string, words: number): string {
  const collapsed = collapseSpace(message);
  let seen = 0;
  let end = 0;
  for (const word of collapsed.matchAll(wordPattern)) {
    if (seen++ === words) return collapsed.slice(0, end);
    end = word.index + word[0].length;
  }
  return message;
}

/** How many different phrases of a list occur in a message. */
function countPhrases(padded: string, phrases: readonly string[]): number {
  const found = new Set<string>();
  for (const phrase of phrases) {
    const looked = soughtPhrase(phrase);
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
 * Reads the facts that a message alone gives. `complexity` given by the caller wins over the computed one, and is kept
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

/** Decimal rounding, half up, of a number from 0 to 1 by its shortest digits (0.0005 is 0.001). */
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
