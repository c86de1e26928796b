import { afterEach, expect, it } from "vitest";
import { alertSentence } from "../governance/alerts/words.ts";
import { factNames } from "../governance/rules/facts.ts";
import { germanCatalogue } from "./german.ts";
import { setLanguage, translated } from "./index.ts";

afterEach(() => setLanguage("en", "en-GB", {}));

const budget = (period: string): string =>
  alertSentence({
    kind: "budget",
    alert_name: "monthly_budget",
    message: "",
    threshold: 90,
    value: 91,
    period,
    details: { metric: "tokens", amount: 45_510, budget: 50_000 },
  });
const userBudget = (period: string): string =>
  alertSentence({
    kind: "user_budget",
    alert_name: "dear_user",
    message: "",
    threshold: 40_000,
    value: 45_510,
    period,
    details: { metric: "tokens" },
  });

it("what the console's process says of a period is said in the person's language, their dates as they write them", async () => {
  const sentences = ["2027-03-05", "2027-W01", "2027-03", "2027"].map(budget);
  expect(sentences).toEqual([
    "45,510 of 50,000 used (5 March 2027): 91 %.",
    "45,510 of 50,000 used (the week from 4 January 2027): 91 %.",
    "45,510 of 50,000 used (March 2027): 91 %.",
    "45,510 of 50,000 used (2027): 91 %.",
  ]);
  const german = await germanCatalogue();
  for (const [locale, january] of [
    ["de-DE", "Januar"],
    ["de-AT", "Jänner"],
  ] as const) {
    setLanguage("de", locale, german);
    const [used, most] = [45_510, 50_000].map((number) => number.toLocaleString(locale));
    expect(translated(userBudget("2027-01"))).toBe(`Bisher ${used} verbraucht (${january} 2027).`);
    expect(sentences.map(translated)).toEqual(
      ["5. März 2027", `Woche ab 4. ${january} 2027`, "März 2027", "2027"].map(
        (period) => `${used} von ${most} verbraucht (${period}): 91 %.`,
      ),
    );
    expect(translated("This key expired on 31 January 2027.")).toBe(
      `Dieser Schlüssel lief am 31. ${january} 2027 ab.`,
    );
  }
});

it("what the database says of a stopped call and of upkeep is said in the person's language, names and numbers kept", async () => {
  setLanguage("de", "de-DE", await germanCatalogue());
  const said = {
    "Raise the daily limit to at least 105,819 tokens.":
      "Heben Sie das Tageslimit auf mindestens 105.819 Tokens an.",
    "Ask for less: 1,200 tokens are left of the monthly limit.":
      "Verlangen Sie weniger: Vom Monatslimit sind 1.200 Tokens übrig.",
    "Move the user to the plan Pro.": "Wechseln Sie den Benutzer in den Tarif Pro.",
    "Upkeep of anna failed: division by zero": "Die Wartung von anna ist gescheitert: division by zero",
    "A Stripe event waits for a decision: unknown plan (invoice.paid)":
      "Ein Stripe-Ereignis wartet auf eine Entscheidung: unbekannter Tarif (invoice.paid)",
  };
  for (const [english, german] of Object.entries(said)) expect(translated(english)).toBe(german);
});

it("has German for every fact that a rule may read, by its name in the editor", async () => {
  const german = await germanCatalogue();
  const missing = factNames.map((fact) => fact.replaceAll("_", " ")).filter((words) => !german[words]);
  expect(missing).toEqual([]);
});
