import { currencyExponent } from "../money/currency.ts";
import type { ReceiptFacts } from "./receipt.ts";
import { periodOfKey } from "../time/period.ts";
import { formatCount } from "./words.ts";

/**
 * Whatever users read, in each language: the one catalogue. The database has the same (`governance.user_word`, written
 * from here by `npm run schema`), so its answers, its mails and the screens' texts to copy are the same words.
 * `{name}` stands for a value. A new language: its name in `userLanguages`, and a column here.
 */
const en = {
  "language.name": "English",
  // For dates: a BCP 47 name.
  "format.locale": "en-GB",
  "format.separator": ",",
  "format.decimal": ".",
  "format.months": "January,February,March,April,May,June,July,August,September,October,November,December",
  "format.day": "{day} {month} {year}",
  "format.week": "the week from {day}",
  "format.month": "{month} {year}",
  "format.moment": "{day}, {time}",

  // Why a call was stopped, by reason.
  "reason.insufficient_tokens": "You do not have enough tokens left for this.",
  "reason.daily_limit": "You have reached today's limit. It resets tomorrow.",
  "reason.monthly_limit": "You have reached this month's limit.",
  "reason.budget_exhausted": "The budget for this is used up.",
  "reason.user_blocked": "Your access is paused. Please contact support.",
  "reason.spam_identical": "You have sent the same message many times. Please wait before you send it again.",
  "reason.bot_behavior": "You are sending messages too fast. Please slow down.",
  "reason.token_hogging": "You have sent very many messages today. Please come back tomorrow.",
  "reason.rate_limited": "Too many requests. Please wait a moment.",
  "reason.off_topic": "I cannot help with that here.",
  "reason.other": "This request was not allowed.",
  unavailable: "The service cannot answer now. Please try again.",

  // What to do next.
  "next.resolved": "This is resolved: please try again.",
  "next.works_again": "It will work again from {at}.",
  "next.needed": "It needed {need} tokens; you had {have}.",
  "next.buy": "You can buy tokens here: {url}",
  "next.upgrade": "The plan {plan} gives you more.",
  "next.upgrade_at": "The plan {plan} gives you more: {url}",
  "next.plans": "You can choose a plan here: {url}",
  "next.contact": "You can reach us here: {url}",
  "next.ask_us": "If this looks wrong, answer with this number: {reference}.",

  // Warnings in answers.
  "warning.daily_limit": "{percent}% of the daily limit is used.",
  "warning.monthly_limit": "{percent}% of the monthly limit is used.",
  "warning.usage": "You have used {percent}% of your tokens.",

  // Why a purchase may not begin.
  "checkout.plan_not_allowed": "Your plan does not include buying this pack.",
  "checkout.user_blocked": "Your account is blocked. Please contact support.",
  "checkout.cooldown": "You have just begun a purchase. Please wait a moment.",
  "checkout.too_many_open_checkouts":
    "You have several purchases open. Finish one of them, or try again later.",

  // Alerts about a user, by kind.
  "alert.user_budget": "You have used {value} ({period}).",
  "alert.usage_spike": "You used {value} tokens within an hour; {usual} is usual for you.",
  "alert.low_balance": "You have {value} tokens left.",
  "alert.high_usage": "One of your requests used {value} tokens.",
  "alert.negative_balance":
    "Your last request used {value} tokens more than you had. The next tokens you get pay for them first.",
  "alert.daily_limit": "You have used {threshold} % of today's tokens.",
  "alert.monthly_limit": "You have used {threshold} % of this month's tokens.",
  "alert.allowance": "You have used {threshold} % of this month's tokens.",
  "amount.tokens": "{value} tokens",

  // Messages about purchases.
  "message.purchase": "Your purchase is confirmed: {tokens} tokens for {money}.",
  "message.renewal": "Your payment for the plan {plan} is confirmed: {tokens} tokens for {money}.",
  "message.subscription_expire": "Your subscription {plan} has ended, and its tokens with it.",
  "message.subscription_convert":
    "Your subscription {plan} has ended. You keep the {tokens} tokens that were left.",
  "message.subscription_keep": "Your subscription {plan} has ended. Its tokens stay until they expire.",
  "message.refund": "{tokens} tokens were taken back, because their payment was refunded.",
  "message.dispute":
    "{tokens} tokens were taken back, because their payment was disputed and the dispute was lost.",
  "message.support": "{tokens} tokens were taken back by our support.",

  // Mails, and what they are about.
  "mail.hello": "Hello {name},",
  "mail.hello_nobody": "Hello,",
  "mail.at": "This happened on {at} ({zone}).",
  "mail.why": "You get this because mails about {topic} are on for your account.",
  "mail.turn_off_at": "Turn them off: {url}",
  "topic.limits": "your limits",
  "topic.low_balance": "a low balance",
  "topic.purchases": "purchases",
  "topic.subscription": "your subscription",
  "topic.tokens_taken": "tokens that were taken back",

  // The page of the link that turns mails off.
  "off.question": "No more mails about {topic}?",
  "off.button": "Turn them off",
  "off.done": "Mails about {topic} are off now.",
  "off.wrong": "This link is not valid. Please use the one in the newest mail.",
} as const;

/** A text of the catalogue. */
export type UserWord = keyof typeof en;

const de: Readonly<Record<UserWord, string>> = {
  "language.name": "Deutsch",
  "format.locale": "de-DE",
  "format.separator": ".",
  "format.decimal": ",",
  "format.months": "Januar,Februar,März,April,Mai,Juni,Juli,August,September,Oktober,November,Dezember",
  "format.day": "{day}. {month} {year}",
  "format.week": "Woche ab {day}",
  "format.month": "{month} {year}",
  "format.moment": "{day}, {time} Uhr",

  "reason.insufficient_tokens": "Dafür reichen Ihre Tokens nicht mehr.",
  "reason.daily_limit": "Sie haben das Limit für heute erreicht. Morgen beginnt es von vorn.",
  "reason.monthly_limit": "Sie haben das Limit für diesen Monat erreicht.",
  "reason.budget_exhausted": "Das Budget dafür ist aufgebraucht.",
  "reason.user_blocked": "Ihr Zugang ist angehalten. Bitte wenden Sie sich an den Support.",
  "reason.spam_identical":
    "Sie haben dieselbe Nachricht viele Male gesendet. Bitte warten Sie, bevor Sie sie erneut senden.",
  "reason.bot_behavior": "Sie senden Nachrichten zu schnell. Bitte lassen Sie sich etwas Zeit.",
  "reason.token_hogging": "Sie haben heute sehr viele Nachrichten gesendet. Bitte kommen Sie morgen wieder.",
  "reason.rate_limited": "Zu viele Anfragen. Bitte warten Sie einen Moment.",
  "reason.off_topic": "Dabei kann ich hier nicht helfen.",
  "reason.other": "Diese Anfrage war nicht erlaubt.",
  unavailable: "Der Dienst kann gerade nicht antworten. Bitte versuchen Sie es noch einmal.",

  "next.resolved": "Das ist behoben: Bitte versuchen Sie es noch einmal.",
  "next.works_again": "Ab {at} geht es wieder.",
  "next.needed": "Nötig waren {need} Tokens, vorhanden waren {have}.",
  "next.buy": "Hier können Sie Tokens kaufen: {url}",
  "next.upgrade": "Der Tarif {plan} bietet Ihnen mehr.",
  "next.upgrade_at": "Der Tarif {plan} bietet Ihnen mehr: {url}",
  "next.plans": "Hier können Sie einen Tarif wählen: {url}",
  "next.contact": "So erreichen Sie uns: {url}",
  "next.ask_us": "Falls das nicht stimmen kann, antworten Sie bitte mit dieser Nummer: {reference}.",

  "warning.daily_limit": "{percent} % des Tageslimits sind verbraucht.",
  "warning.monthly_limit": "{percent} % des Monatslimits sind verbraucht.",
  "warning.usage": "Sie haben {percent} % Ihrer Tokens verbraucht.",

  "checkout.plan_not_allowed": "In Ihrem Tarif kann dieses Paket nicht gekauft werden.",
  "checkout.user_blocked": "Ihr Konto ist gesperrt. Bitte wenden Sie sich an den Support.",
  "checkout.cooldown": "Sie haben gerade einen Kauf begonnen. Bitte warten Sie einen Moment.",
  "checkout.too_many_open_checkouts":
    "Sie haben mehrere Käufe offen. Schließen Sie einen davon ab, oder versuchen Sie es später.",

  "alert.user_budget": "Sie haben schon {value} verbraucht ({period}).",
  "alert.usage_spike": "Sie haben in einer Stunde {value} Tokens verbraucht; üblich sind bei Ihnen {usual}.",
  "alert.low_balance": "Sie haben noch {value} Tokens.",
  "alert.high_usage": "Eine Ihrer Anfragen hat {value} Tokens verbraucht.",
  "alert.negative_balance":
    "Ihre letzte Anfrage hat {value} Tokens mehr verbraucht, als Sie hatten. Ihre nächsten Tokens gleichen das zuerst aus.",
  "alert.daily_limit": "Sie haben {threshold} % Ihrer Tokens für heute verbraucht.",
  "alert.monthly_limit": "Sie haben {threshold} % Ihrer Tokens für diesen Monat verbraucht.",
  "alert.allowance": "Sie haben {threshold} % Ihrer Tokens für diesen Monat verbraucht.",
  "amount.tokens": "{value} Tokens",

  "message.purchase": "Ihr Kauf ist bestätigt: {tokens} Tokens für {money}.",
  "message.renewal": "Ihre Zahlung für den Tarif {plan} ist bestätigt: {tokens} Tokens für {money}.",
  "message.subscription_expire": "Ihr Abonnement {plan} ist beendet, und damit sind seine Tokens verfallen.",
  "message.subscription_convert":
    "Ihr Abonnement {plan} ist beendet. Die {tokens} Tokens, die noch übrig waren, behalten Sie.",
  "message.subscription_keep":
    "Ihr Abonnement {plan} ist beendet. Seine Tokens bleiben Ihnen, bis sie verfallen.",
  "message.refund": "{tokens} Tokens wurden zurückgenommen, weil ihre Zahlung erstattet wurde.",
  "message.dispute":
    "{tokens} Tokens wurden zurückgenommen, weil ihre Zahlung angefochten wurde und die Anfechtung Erfolg hatte.",
  "message.support": "{tokens} Tokens wurden von unserem Support zurückgenommen.",

  "mail.hello": "Guten Tag {name},",
  "mail.hello_nobody": "Guten Tag,",
  "mail.at": "Das war am {at} ({zone}).",
  "mail.why": "Sie erhalten diese E-Mail, weil E-Mails über {topic} für Ihr Konto eingeschaltet sind.",
  "mail.turn_off_at": "Ausschalten: {url}",
  "topic.limits": "Ihre Limits",
  "topic.low_balance": "ein niedriges Guthaben",
  "topic.purchases": "Käufe",
  "topic.subscription": "Ihr Abonnement",
  "topic.tokens_taken": "zurückgenommene Tokens",

  "off.question": "Keine E-Mails mehr über {topic}?",
  "off.button": "Ausschalten",
  "off.done": "E-Mails über {topic} sind jetzt ausgeschaltet.",
  "off.wrong": "Dieser Link ist nicht gültig. Bitte verwenden Sie den aus der neuesten E-Mail.",
};

/** The catalogue: every text exists in every language. */
export const userWords = { en, de } as const;

/** One of the languages in which users are written to, as BCP 47 names it. */
export type UserLanguage = keyof typeof userWords;
/** Languages in which users are written to. */
export const userLanguages = ["en", "de"] as const satisfies readonly UserLanguage[];

/** A text of the catalogue with its values; a value that is missing leaves its place empty. */
export function say(
  word: UserWord,
  language: UserLanguage,
  values: Readonly<Record<string, string>> = {},
): string {
  return userWords[language][word].replace(/\{(\w+)\}/g, (_, name: string) =>
    Object.hasOwn(values, name) ? (values[name] ?? "") : "",
  );
}

/** The language that is nearest to what a browser or an account names ("de-AT": de); English where none is. */
export function userLanguageOf(name: string | null | undefined): UserLanguage {
  const short = (name ?? "").toLowerCase().split(/[-_]/)[0];
  return userLanguages.find((language) => language === short) ?? "en";
}

/** The language's own name. */
export const userLanguageName = (language: UserLanguage): string => say("language.name", language);

/** A whole number with the language's separators between thousands. */
export const sayCount = (count: number, language: UserLanguage): string =>
  formatCount(count).replaceAll(",", say("format.separator", language));

/** Money out of minor units: `5.00 USD`. */
export function sayMoney(minor: number, currency: string, language: UserLanguage): string {
  const places = currencyExponent(currency);
  const digits = String(Math.abs(minor)).padStart(places + 1, "0");
  const whole = sayCount(Number(digits.slice(0, digits.length - places)), language);
  const rest = places === 0 ? "" : say("format.decimal", language) + digits.slice(-places);
  return `${minor < 0 ? "-" : ""}${whole}${rest} ${currency.toUpperCase()}`;
}

/** A day, YYYY-MM-DD: `5 March 2027`. */
function sayDay(isoDay: string, language: UserLanguage): string {
  const [year = "", month, day] = isoDay.split("-");
  return say("format.day", language, { day: String(Number(day)), month: sayMonth(month, language), year });
}

const sayMonth = (month: string | undefined, language: UserLanguage): string =>
  say("format.months", language).split(",")[Number(month) - 1] ?? "";

/**
 * The period that a key names: `5 March 2027`, `the week from 4 January 2027`, `March 2027`, `2027`. What is no such
 * key stays as it is. `governance.say_period` is the same.
 */
export function sayPeriod(key: string, language: UserLanguage): string {
  const period = periodOfKey(key);
  switch (period?.unit) {
    case "day":
      return sayDay(period.from, language);
    case "week":
      return say("format.week", language, { day: sayDay(period.from, language) });
    case "month":
      return say("format.month", language, {
        month: sayMonth(key.slice(5), language),
        year: key.slice(0, 4),
      });
    case "year":
    case undefined:
      return key;
  }
}

const reasonWord = (reason: string): UserWord | null =>
  Object.hasOwn(en, `reason.${reason}`) ? (`reason.${reason}` as UserWord) : null;

/** What a user reads where the rule has no message of its own. */
export const standardMessage = (reason: string, language: UserLanguage = "en"): string =>
  say(reasonWord(reason) ?? "reason.other", language);

/**
 * What the user of a stopped call reads: the rule's own message, which is in English only; in other languages the
 * standard message of its reason. `governance.user_message` is the same.
 */
export function userMessage(reason: string, message: string | null, language: UserLanguage): string {
  const isStandard = userLanguages.some((other) => message === standardMessage(reason, other));
  if (message === null || isStandard) return standardMessage(reason, language);
  return language === "en" || reasonWord(reason) === null ? message : standardMessage(reason, language);
}

/** What the text for a user is made from. */
export interface UserTextFacts {
  /** The number that the user is asked to answer with. */
  readonly decision_id: number;
  readonly reason: string | null;
  /** What the product showed. */
  readonly message: string | null;
  readonly clears_at: string | null;
  readonly timezone: string;
  /** In tokens. */
  readonly shortfall: ReceiptFacts["shortfall"];
  /** Where tokens are sold, where that would help. */
  readonly buy_url?: string | null | undefined;
  /** The plan that would have let it pass, and where to take it. */
  readonly upgrade?: { readonly name: string; readonly url?: string | null | undefined } | null | undefined;
  /** Where the user can reach a person, where only that would help. */
  readonly contact_url?: string | null | undefined;
}

/** For the user, in words that need no knowledge of ours: what happened, and what to do next, a line each. */
export function userText(
  facts: UserTextFacts,
  language: UserLanguage,
  wouldPassNow: boolean,
  formatMoment: (at: string, locale: string) => string,
): string {
  const { shortfall, upgrade, buy_url: buy, contact_url: contact, clears_at: clears } = facts;
  const next = wouldPassNow
    ? [say("next.resolved", language)]
    : [
        clears === null
          ? null
          : say("next.works_again", language, { at: formatMoment(clears, say("format.locale", language)) }),
        buy ? say("next.buy", language, { url: buy }) : null,
        upgrade
          ? say(upgrade.url ? "next.upgrade_at" : "next.upgrade", language, {
              plan: upgrade.name,
              url: upgrade.url ?? "",
            })
          : null,
        contact ? say("next.contact", language, { url: contact }) : null,
      ];
  return [
    userMessage(facts.reason ?? "", facts.message, language),
    shortfall
      ? say("next.needed", language, {
          need: sayCount(shortfall.need, language),
          have: sayCount(shortfall.have, language),
        })
      : null,
    ...next,
    say("next.ask_us", language, { reference: String(facts.decision_id) }),
  ]
    .filter((line) => line !== null)
    .join("\n");
}
