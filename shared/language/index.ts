/**
 * The language of the screens. The sources are written in English; a build step (`cli/language/`) looks each text up
 * here. Texts that were made elsewhere (the console's process, the database) are looked up as they are shown, by
 * `translated`. Without a catalogue everything is English.
 */

/** English text → the text in the person's language; `{name}` stands for what is put there. */
export type Catalogue = Readonly<Record<string, string>>;

/** The languages there are. `pseudo` marks what is looked up, for the test that finds what is not. */
export const languages = ["en", "de"] as const;
export type Language = (typeof languages)[number];
export type LanguageInUse = Language | "pseudo";

interface Spoken {
  readonly language: LanguageInUse;
  readonly locale: string;
  readonly catalogue: Catalogue;
}

let spoken: Spoken = { language: "en", locale: "en-GB", catalogue: {} };
let plurals = new Intl.PluralRules("en");
let found = new Map<string, string>();
let patterns: readonly Pattern[] | null = null;

/** Sets the language. Texts that are already on the screen stay: the page is loaded again. */
export function setLanguage(language: LanguageInUse, locale: string, catalogue: Catalogue): void {
  spoken = { language, locale, catalogue };
  plurals = new Intl.PluralRules(language === "pseudo" ? "en" : language);
  found = new Map();
  patterns = null;
}

export const currentLanguage = (): LanguageInUse => spoken.language;
/** For `Intl`: the person's own where it fits the language, such as de-AT. */
export const currentLocale = (): string => spoken.locale;

/** The language of a locale that the console speaks; English for all others. */
export function languageOf(locale: string): Language {
  const short = locale.slice(0, 2).toLowerCase();
  return languages.find((language) => language === short) ?? "en";
}

/** The locale of a language: the system's own where it is one of it. */
export function localeOf(language: Language, system: readonly string[]): string {
  const own = system.find((locale) => locale.toLowerCase().startsWith(language) && isLocale(locale));
  return own ?? { en: "en-GB", de: "de-DE" }[language];
}

function isLocale(name: string): boolean {
  try {
    return Intl.DateTimeFormat.supportedLocalesOf([name]).length > 0;
  } catch {
    return false;
  }
}

/** What separates a text from the place it is meant for, where one word needs two translations. */
const placeMark = " @@ ";

/** The text in the person's language, its values not yet in it; spaces at its ends stay. */
export function lookUp(text: string): string {
  const key = text.trim();
  const own = spoken.catalogue[key];
  if (own === undefined || spoken.language === "pseudo") {
    const at = text.indexOf(placeMark);
    const english = at < 0 ? text : text.slice(0, at);
    return spoken.language === "pseudo" ? mark(english) : english;
  }
  const start = text.startsWith(" ") && !/^[,.;:)]/.test(own) ? " " : "";
  return `${start}${own}${text.endsWith(" ") && !text.includes(placeMark) ? " " : ""}`;
}

const mark = (text: string): string => {
  const kept = text.trim();
  return kept === "" ? text : text.replace(kept, () => `⟦${kept}⟧`);
};

/** A text cut at its values: words at even places, names of values at odd ones. */
const cuts = new Map<string, readonly string[]>();
export function cut(text: string): readonly string[] {
  let parts = cuts.get(text);
  if (!parts) {
    parts = text
      .replaceAll("{{", "\u0001")
      .replaceAll("}}", "\u0002")
      .split(/[{}]/)
      .map((part) => part.replaceAll("\u0001", "{").replaceAll("\u0002", "}"));
    cuts.set(text, parts);
  }
  return parts;
}

/** A text in the person's language, with its values. */
export function say(text: string, values?: Readonly<Record<string, unknown>>): string {
  const own = lookUp(text);
  if (!values) return own.includes("{{") || own.includes("}}") ? cut(own).join("") : own;
  return cut(own)
    .map((part, index) => (index % 2 === 0 ? part : String(values[part])))
    .join("");
}

/** A number with what is counted: the text has a form for one and a form for several, with ` | ` between. */
export function count(text: string, n: number): string {
  const own = lookUp(text);
  const [one = own, many = one] = own.replace(/^⟦|⟧$/g, "").split(" | ");
  const form = plurals.select(n) === "one" ? one : many;
  const shown = form.replace("{n}", n.toLocaleString(spoken.locale));
  return spoken.language === "pseudo" ? mark(shown) : shown;
}

interface Pattern {
  readonly english: RegExp;
  readonly own: string;
  readonly names: readonly string[];
  /** Letters that are fixed: the pattern with most of them is the one that was meant. */
  readonly weight: number;
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);

function allPatterns(): readonly Pattern[] {
  patterns ??= Object.entries(spoken.catalogue)
    .filter(([text]) => text.includes("{") && !text.includes(" | ") && !text.includes(placeMark))
    .map(([text, own]) => {
      const parts = cut(text);
      const english = parts.map((part, index) => (index % 2 === 0 ? escaped(part) : "(.+?)")).join("");
      const weight = parts
        .filter((_, index) => index % 2 === 0)
        .join("")
        .replace(/[^\p{L}]/gu, "").length;
      return {
        english: new RegExp(`^${english}$`, "su"),
        own,
        names: parts.filter((_, index) => index % 2 === 1),
        weight,
      };
    })
    .filter(({ weight }) => weight >= 6)
    .sort((one, other) => other.weight - one.weight);
  return patterns;
}

/**
 * A text that was made elsewhere, in English: looked up as it is, else by the catalogue's text that it was made from, else
 * sentence by sentence. What nothing fits (names, other people's words) stays as it is.
 */
export function translated(text: string): string {
  if (spoken.language === "en" || text === "") return text;
  const known = found.get(text);
  if (known !== undefined) return known;
  const own = fromWhole(text) ?? fromSentences(text) ?? text;
  if (found.size > 2000) found.clear();
  found.set(text, own);
  return own;
}

/** A code as words: only what the catalogue has word by word. Names that people gave stay. */
export function wordInLanguage(words: string): string {
  if (!Object.hasOwn(spoken.catalogue, words)) return words;
  return spoken.language === "pseudo" ? mark(words) : (spoken.catalogue[words] ?? words);
}

function fromWhole(text: string): string | null {
  if (Object.hasOwn(spoken.catalogue, text)) return say(text);
  if (text.length > 2000) return null;
  if (spoken.language === "pseudo")
    return allPatterns().some(({ english }) => english.test(text)) ? mark(text) : null;
  for (const { english, own, names } of allPatterns()) {
    const match = english.exec(text);
    if (!match) continue;
    const values = Object.fromEntries(names.map((name, index) => [name, inLocale(match[index + 1] ?? "")]));
    return cut(own)
      .map((part, index) => (index % 2 === 0 ? part : (values[part] ?? "")))
      .join("");
  }
  return null;
}

function fromSentences(text: string): string | null {
  const sentences = text.split(/(?<=[.?!])\s+(?=[\p{Lu}(])/u);
  if (sentences.length < 2) return null;
  const own = sentences.map((sentence) => fromWhole(sentence));
  return own.some((each) => each !== null)
    ? own.map((each, index) => each ?? sentences[index]).join(" ")
    : null;
}

const months = "January February March April May June July August September October November December".split(
  " ",
);

/** A month, a day or a moment in English words: "March 2027", "5 March 2027", "5 March 2027, 14:30 UTC". */
function dateInLocale(value: string): string | null {
  const [all, day, month = "", year, rest] =
    /^(?:(\d{1,2}) )?(\p{L}+) (\d{4})(, \d\d:\d\d(?: UTC)?)?$/u.exec(value) ?? [];
  if (all === undefined || !months.includes(month)) return null;
  const date = new Date(Date.UTC(Number(year), months.indexOf(month), Number(day ?? 1)));
  const options = { month: "long", year: "numeric", timeZone: "UTC" } as const;
  return (
    date.toLocaleDateString(spoken.locale, day === undefined ? options : { day: "numeric", ...options }) +
    (rest ?? "")
  );
}

/** A value inside such a text: a number or a date as the person writes it, a text of ours in their language. */
function inLocale(value: string): string {
  if (/^-?\d{1,3}(?:,\d{3})+(?:\.\d+)?$|^-?\d+\.\d+$/.test(value)) {
    const plain = value.replaceAll(",", "");
    const digits = plain.split(".")[1]?.length ?? 0;
    return Number(plain).toLocaleString(spoken.locale, { minimumFractionDigits: digits });
  }
  const date = dateInLocale(value);
  if (date !== null) return date;
  const from = /^the week from (.+)$/.exec(value)?.[1];
  if (from !== undefined) return say("the week from {day}", { day: dateInLocale(from) ?? from });
  return Object.hasOwn(spoken.catalogue, value) ? say(value) : value;
}
