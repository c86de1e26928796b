import type { ReceiptFacts } from "./receipt.ts";
import { formatCount } from "./words.ts";

/** Languages in which users are written to. One catalogue: whatever is said in one is said in each. */
export const userLanguages = ["en", "de"] as const;
/** One of them, as BCP 47 names it. */
export type UserLanguage = (typeof userLanguages)[number];

interface UserWords {
  readonly name: string;
  /** By reason code; what no rule and no reason says is `other`. */
  readonly reasons: Readonly<Record<string, string>>;
  readonly other: string;
  /** The call would pass now. */
  readonly resolved: string;
  readonly worksAgain: (at: string) => string;
  readonly needed: (need: string, have: string) => string;
  readonly askUs: (reference: string) => string;
  /** Between thousands. */
  readonly separator: string;
  /** For dates: a BCP 47 name. */
  readonly locale: string;
}

const words: Readonly<Record<UserLanguage, UserWords>> = {
  en: {
    name: "English",
    reasons: {
      insufficient_tokens: "You do not have enough tokens left for this.",
      daily_limit: "You have reached today's limit. It starts anew tomorrow.",
      monthly_limit: "You have reached this month's limit.",
      budget_exhausted: "The budget for this is used up.",
      user_blocked: "Your access is paused. Please contact support.",
      spam_identical: "You have sent the same message many times. Please wait before you send it again.",
      bot_behavior: "You are sending messages too fast. Please slow down.",
      token_hogging: "You have sent very many messages today. Please come back tomorrow.",
      rate_limited: "Too many requests. Please wait a moment.",
      off_topic: "I cannot help with that here.",
    },
    other: "This request was not allowed.",
    resolved: "This is resolved: please try again.",
    worksAgain: (at) => `It will work again from ${at}.`,
    needed: (need, have) => `It needed ${need} tokens; you had ${have}.`,
    askUs: (reference) => `If this looks wrong, answer with this number: ${reference}.`,
    separator: ",",
    locale: "en-GB",
  },
  de: {
    name: "Deutsch",
    reasons: {
      insufficient_tokens: "Dafür reichen Ihre Tokens nicht mehr.",
      daily_limit: "Sie haben das Limit für heute erreicht. Morgen beginnt es von vorn.",
      monthly_limit: "Sie haben das Limit für diesen Monat erreicht.",
      budget_exhausted: "Das Budget dafür ist aufgebraucht.",
      user_blocked: "Ihr Zugang ist angehalten. Bitte wenden Sie sich an den Support.",
      spam_identical:
        "Sie haben dieselbe Nachricht viele Male gesendet. Bitte warten Sie, bevor Sie sie erneut senden.",
      bot_behavior: "Sie senden Nachrichten zu schnell. Bitte lassen Sie sich etwas Zeit.",
      token_hogging: "Sie haben heute sehr viele Nachrichten gesendet. Bitte kommen Sie morgen wieder.",
      rate_limited: "Zu viele Anfragen. Bitte warten Sie einen Moment.",
      off_topic: "Dabei kann ich hier nicht helfen.",
    },
    other: "Diese Anfrage war nicht erlaubt.",
    resolved: "Das ist behoben: Bitte versuchen Sie es noch einmal.",
    worksAgain: (at) => `Ab ${at} geht es wieder.`,
    needed: (need, have) => `Nötig waren ${need} Tokens, vorhanden waren ${have}.`,
    askUs: (reference) =>
      `Falls das nicht stimmen kann, antworten Sie bitte mit dieser Nummer: ${reference}.`,
    separator: ".",
    locale: "de-DE",
  },
};

/** The language's own name. */
export const userLanguageName = (language: UserLanguage): string => words[language].name;

/**
 * What a user reads where the rule says nothing itself. The database says the same in English
 * (`governance.reason_message`).
 */
export function standardMessage(reason: string, language: UserLanguage = "en"): string {
  const { reasons, other } = words[language];
  return Object.hasOwn(reasons, reason) ? (reasons[reason] ?? other) : other;
}

/** What the text for a user is made from. */
export interface UserTextFacts {
  /** The number that the user is asked to answer with. */
  readonly decision_id: number;
  readonly reason: string | null;
  /** What the product showed, in the language that the rule is written in. */
  readonly message: string | null;
  readonly clears_at: string | null;
  readonly timezone: string;
  /** In tokens. */
  readonly shortfall: ReceiptFacts["shortfall"];
}

/** For the user, in words that need no knowledge of ours: what happened, and what to do next, a line each. */
export function userText(
  facts: UserTextFacts,
  language: UserLanguage,
  wouldPassNow: boolean,
  formatMoment: (at: string, locale: string) => string,
): string {
  const say = words[language];
  const count = (tokens: number): string => formatCount(tokens).replaceAll(",", say.separator);
  const standard = standardMessage(facts.reason ?? "", language);
  const next = wouldPassNow
    ? say.resolved
    : facts.clears_at === null
      ? null
      : say.worksAgain(formatMoment(facts.clears_at, say.locale));
  return [
    // What a rule says itself is in one language alone.
    language === "en" ? (facts.message ?? standard) : standard,
    next,
    facts.shortfall ? say.needed(count(facts.shortfall.need), count(facts.shortfall.have)) : null,
    say.askUs(String(facts.decision_id)),
  ]
    .filter((line) => line !== null)
    .join("\n");
}
