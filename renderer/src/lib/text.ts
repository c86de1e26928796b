/**
 * Text that people outside the house wrote (names, messages, file names) made safe to look at: nothing invisible,
 * nothing that turns the reading direction of its neighbours, nothing endless. React escapes markup already.
 */

import { describeReason } from "../../../shared/governance/rules/receipt.ts";
import { wordInLanguage } from "../../../shared/language/index.ts";

// Joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
const INVISIBLE =
  /[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;
// oxlint-disable-next-line no-control-regex -- control characters are what is looked for
const CONTROL_OR_BREAK = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g;
/** More than four marks on one letter is a drawing, not a script. */
const STACKED_MARKS = /(\p{M}{4})\p{M}+/gu;

const segments = new Intl.Segmenter("en", { granularity: "grapheme" });

/** One line of visible text; empty when nothing visible is left. */
export function cleanText(text: string): string {
  return text
    .slice(0, 20_000)
    .toWellFormed()
    .replace(CONTROL_OR_BREAK, " ")
    .replace(INVISIBLE, "")
    .replace(STACKED_MARKS, "$1")
    .replace(/\s+/g, " ")
    .trim();
}

/** The same of a text of several lines. */
export const cleanLines = (text: string): string => text.split("\n").map(cleanText).join("\n");

/** At most `length` visible characters (graphemes), the last one an ellipsis where something was cut. */
export function clip(text: string, length: number): string {
  if (text.length <= length) return text;
  let kept = "";
  let count = 0;
  for (const { segment } of segments.segment(text)) {
    count += 1;
    if (count === length) return `${kept.trimEnd()}…`;
    kept += segment;
  }
  return text;
}

/** An id shortened in the middle: both ends are what people compare. */
export function shortenId(id: string, head = 8, tail = 4): string {
  const clean = cleanText(id);
  const characters = Array.from(segments.segment(clean), ({ segment }) => segment);
  if (characters.length <= head + tail + 1) return clean;
  return `${characters.slice(0, head).join("")}…${characters.slice(-tail).join("")}`;
}

/** `daily_limit` → `daily limit`: our codes as words, in the person's language where they are ours. */
export function codeWords(code: string): string {
  return wordInLanguage(cleanText(code).replaceAll("_", " "));
}

/** Why a call was stopped, in words; a rule's reason has the name that the rule has everywhere. */
export const reasonWords = (reason: string): string => wordInLanguage(cleanText(describeReason(reason)));

/** Who changed something: a preset as what it is in the person's language, people by their names. */
export function actorWords(by: string): string {
  const clean = cleanText(by);
  const preset = /^preset (.+)$/.exec(clean)?.[1];
  return clip(preset === undefined ? clean : `preset ${preset}`, 60);
}

export { capitalise } from "../../../shared/governance/alerts/words.ts";

/** 1 user, 2 users; the number with separators. */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
