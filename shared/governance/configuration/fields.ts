/**
 * What a configuration is made of: each kind of record with its fields, described once. The console's forms, checks,
 * differences and words follow from these tables; the database checks the same again.
 */
import { alertMetrics } from "../alerts/kinds.ts";

/** The kinds of record, in the order in which they are shown. Rules are records of their own kind, elsewhere. */
export const configKinds = [
  "plan",
  "pack",
  "price",
  "estimate",
  "topic",
  "alert",
  "setting",
  "project",
] as const;
export type ConfigKind = (typeof configKinds)[number];

/** What a field holds. Amounts are whole; `scale` says how a person writes them. */
export type FieldType =
  | { readonly is: "text"; readonly max: number }
  | {
      readonly is: "whole";
      readonly min: number;
      readonly max: number;
      /** tokens, days …: written behind the number. */
      readonly unit?: string;
      /** Written as an amount of money: minor units of the record's currency, or micro-units of the project's. */
      readonly money?: "minor" | "micros";
    }
  | { readonly is: "flag" }
  | { readonly is: "choice"; readonly of: readonly (readonly [value: string, words: string])[] }
  | { readonly is: "numbers"; readonly min: number; readonly max: number; readonly whole: boolean }
  | { readonly is: "texts"; readonly max: number; readonly each: number; readonly pattern?: RegExp }
  /** One plan, or several. */
  | { readonly is: "plan" }
  | { readonly is: "plans" }
  | { readonly is: "date" }
  /** What this console does not know: shown and kept as it is. */
  | { readonly is: "json" };

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly hint?: string;
  readonly type: FieldType;
  /** What it is where the record leaves it out; undefined: it is needed. */
  readonly otherwise?: unknown;
  /** What nothing means, where it may be left empty. */
  readonly empty?: string;
  /** Part of the record's name: set when it is made, and never after. */
  readonly isName?: boolean;
}

const most = Number.MAX_SAFE_INTEGER;
const tokens = (min = 0): FieldType => ({ is: "whole", min, max: most, unit: "tokens" });
const text = (max = 255): FieldType => ({ is: "text", max });
const perMillion: FieldType = { is: "whole", min: 0, max: 1_000_000_000_000_000, money: "micros" };
const percents: FieldType = { is: "numbers", min: 1, max: 100, whole: true };
export const channelPattern = /^[a-z][a-z0-9_]{0,31}$/;
const channels: FieldType = { is: "texts", max: 20, each: 32, pattern: channelPattern };

const price = (name: string, label: string, empty: string): Field => ({
  name,
  label,
  type: perMillion,
  otherwise: null,
  empty,
});

export const configFields: Readonly<Record<Exclude<ConfigKind, "setting">, readonly Field[]>> = {
  plan: [
    { name: "plan_id", label: "Id", type: text(), isName: true },
    { name: "name", label: "Name", type: text() },
    {
      name: "monthly_allowance",
      label: "Tokens a month",
      hint: "Granted when a user’s month begins; a change counts from each user’s next month",
      type: tokens(),
      otherwise: 0,
    },
    {
      name: "daily_limit",
      label: "Most tokens a day",
      hint: "Counts at once",
      type: tokens(),
      otherwise: null,
      empty: "no limit",
    },
    {
      name: "monthly_limit",
      label: "Most tokens a month",
      hint: "Counts at once",
      type: tokens(),
      otherwise: null,
      empty: "no limit",
    },
    {
      name: "warn_at",
      label: "Warn at percents",
      hint: "Of the day, the month and the allowance",
      type: percents,
      otherwise: [80, 90, 95],
    },
    { name: "allows_top_up", label: "May buy packs", type: { is: "flag" }, otherwise: true },
    {
      name: "rollover_months",
      label: "Unspent tokens stay",
      type: { is: "whole", min: 0, max: 12, unit: "months" },
      otherwise: 0,
    },
    {
      name: "on_cancel",
      label: "When it is cancelled, tokens",
      type: {
        is: "choice",
        of: [
          ["expire", "expire"],
          ["keep", "stay until their month ends"],
          ["convert", "stay for good"],
        ],
      },
      otherwise: "expire",
    },
    {
      name: "fail_mode",
      label: "Without an answer, calls",
      hint: "What the guard does where the project cannot be asked",
      type: {
        is: "choice",
        of: [
          ["closed", "are refused"],
          ["open", "are let through"],
        ],
      },
      otherwise: "closed",
    },
    {
      name: "upgrade_to",
      label: "Plan to offer at a limit",
      type: { is: "plan" },
      otherwise: null,
      empty: "none",
    },
  ],
  pack: [
    { name: "pack_id", label: "Id", type: text(), isName: true },
    { name: "tokens", label: "Tokens", type: { is: "whole", min: 1, max: 100_000_000, unit: "tokens" } },
    {
      name: "price_minor",
      label: "Price",
      hint: "Counts at once; a payment is checked against the price of its day",
      type: { is: "whole", min: 0, max: most, money: "minor" },
    },
    { name: "currency", label: "Currency", hint: "Three letters, as Stripe writes it", type: text(3) },
    {
      name: "plans",
      label: "Plans that may buy it",
      type: { is: "plans" },
      otherwise: [],
      empty: "all that may buy packs",
    },
  ],
  price: [
    { name: "provider", label: "Provider", type: text(), isName: true },
    { name: "model", label: "Model", hint: "As calls name it", type: text(200), isName: true },
    {
      name: "effective_from",
      label: "From",
      hint: "A day begins at midnight UTC; it holds until the model’s next price",
      type: { is: "date" },
      otherwise: "1970-01-01",
      isName: true,
    },
    { name: "input_micros_per_million", label: "Input, a million tokens", type: perMillion },
    { name: "output_micros_per_million", label: "Output, a million tokens", type: perMillion },
    price("cached_input_micros_per_million", "Cached input", "as input"),
    price("cache_write_micros_per_million", "Cache write", "as input"),
    price("cache_write_1h_micros_per_million", "Cache write, kept an hour", "twice the input"),
    price("reasoning_micros_per_million", "Reasoning", "as output"),
    { name: "currency", label: "Currency", hint: "The project’s", type: text(3), otherwise: "usd" },
  ],
  estimate: [
    { name: "task_type", label: "Task", hint: "As calls name it", type: text(), isName: true },
    {
      name: "tokens",
      label: "Tokens to hold",
      hint: "Where a call gives no estimate of its own",
      type: tokens(1),
    },
  ],
  topic: [
    { name: "topic", label: "Topic", hint: "As rules name it", type: text(1000), isName: true },
    {
      name: "words",
      label: "Words and phrases",
      hint: "One a line; a message with any of them is about it",
      type: { is: "texts", max: 1000, each: 1000 },
    },
  ],
  alert: [
    { name: "alert_name", label: "Name", type: text(), isName: true },
    {
      name: "metric",
      label: "What is watched",
      type: { is: "choice", of: Object.entries(alertMetrics).map(([name, { words }]) => [name, words]) },
    },
    {
      name: "scope",
      label: "Whose",
      hint: "all, user, plan:<id>, scope:<id> or model:<id>",
      type: text(),
      otherwise: "all",
    },
    {
      name: "period",
      label: "Over",
      type: {
        is: "choice",
        of: ["month", "week", "day", "year", "hour"].map((name) => [name, `a ${name}`] as const),
      },
      otherwise: "month",
    },
    {
      name: "budget",
      label: "Budget",
      hint: "In the unit of what is watched: cost in micro-units (1,000,000 is one of the currency), or tokens",
      type: { is: "whole", min: 1, max: most },
      otherwise: null,
      empty: "none: thresholds are amounts",
    },
    {
      name: "thresholds",
      label: "Thresholds",
      hint: "Percents of the budget, or amounts; one alert for each in a period",
      type: { is: "numbers", min: 0, max: most, whole: false },
    },
    {
      name: "channels",
      label: "Tell by",
      hint: "email, slack … one a line",
      type: channels,
      otherwise: [],
      empty: "nobody",
    },
  ],
  project: [
    { name: "name", label: "Preset", hint: "The name that this configuration goes by", type: text() },
    { name: "currency", label: "Currency", type: text(3), otherwise: "usd" },
    { name: "default_plan", label: "Plan of new users", type: { is: "plan" } },
  ],
};

const setting = (
  name: string,
  label: string,
  type: FieldType,
  otherwise: unknown,
  hint?: string,
): readonly [string, Field] => [
  name,
  { name: "value", label, type, otherwise, ...(hint === undefined ? {} : { hint }) },
];
const number = (min: number, max: number, unit?: string): FieldType => ({
  is: "whole",
  min,
  max,
  ...(unit === undefined ? {} : { unit }),
});

/** Settings by name: what each is, and what holds where it is not set. */
export const settingFields: ReadonlyMap<string, Field> = new Map([
  setting(
    "hold_minutes",
    "A hold ends after",
    number(1, 10_080, "minutes"),
    15,
    "Then its tokens are given back",
  ),
  setting("identical_window_minutes", "Identical messages count within", number(1, 10_080, "minutes"), 60),
  setting(
    "reply_tokens",
    "Tokens expected of a reply",
    number(0, 1_000_000_000, "tokens"),
    500,
    "Added to a message’s own",
  ),
  setting("default_estimate", "Tokens of an unknown call", number(1, 1_000_000_000, "tokens"), 300),
  setting(
    "settle_ceiling_tokens",
    "A settlement waits for a person above",
    number(1, most, "tokens"),
    10_000_000,
  ),
  setting("low_balance_tokens", "A balance is low below", number(0, most, "tokens"), 1000),
  setting("high_usage_tokens", "One call is large above", number(0, most, "tokens"), 5000),
  setting(
    "decision_retention_days",
    "Decisions are kept",
    number(32, 36_500, "days"),
    90,
    "The ledger is kept for ever",
  ),
  setting("alert_retention_hours", "Alerts that need nobody are shown", number(1, 87_600, "hours"), 24),
  setting("signal_interval_ms", "Screens are woken at most every", number(50, 60_000, "ms"), 250),
  setting(
    "abuse_burst_calls",
    "Stopped calls that are a burst",
    number(1, most, "calls"),
    100,
    "In ten minutes, and five times the usual of the day before",
  ),
  setting("purchase_cooldown_seconds", "Between two checkouts", number(0, 86_400, "seconds"), 10),
  setting("open_checkout_limit", "Open checkouts of one user", number(0, 1000), 3),
  setting("open_checkout_minutes", "A checkout counts as open for", number(1, 10_080, "minutes"), 60),
  setting(
    "approval_above_minor",
    "Money that needs a second person, above",
    number(0, most, "minor units"),
    10_000,
  ),
  setting(
    "approval_above_tokens",
    "Tokens that need a second person, above",
    number(0, most, "tokens"),
    1_000_000,
  ),
  setting(
    "second_person_for",
    "Changes that need a second person",
    {
      is: "texts",
      max: 9,
      each: 20,
      pattern: /^(project|plan|pack|price|estimate|topic|alert|setting|rule)$/,
    },
    [],
    "One a line: rule, plan, pack, price, estimate, topic, alert, setting, project",
  ),
  setting(
    "pay_debt_from",
    "Debt is paid from",
    {
      is: "choice",
      of: [
        ["free", "whatever is free, at once"],
        ["grants", "the next grants alone"],
      ],
    },
    "free",
  ),
  setting(
    "complexity_words",
    "Words of complex messages",
    { is: "texts", max: 1000, each: 1000 },
    [],
    "One a line",
  ),
  setting(
    "operator_emails",
    "Operators’ addresses",
    { is: "texts", max: 50, each: 254, pattern: /^[^\s@<>(),;:\\"[\]]+@[^\s@<>(),;:\\"[\]]+$/ },
    [],
    "One a line",
  ),
  setting(
    "buy_url",
    "Where users buy",
    text(500),
    null,
    "https://…, in answers and mails about a low balance",
  ),
  setting(
    "upgrade_url",
    "Where users upgrade",
    text(500),
    null,
    "https://…, beside the plan that would help",
  ),
  setting("contact_url", "Where users ask", text(500), null, "mailto:… or https://…"),
  setting("unsubscribe_url", "Where mails are turned off", text(500), null, "https://…; ?token=… is added"),
  setting("default_language", "Language of users who chose none", text(2), null, "Such as en or de"),
  setting("operator_channels", "Channels to operators", channels, ["email"], "One a line"),
  setting("user_warning_channels", "Users are warned by", channels, ["email"], "One a line"),
]);

const unknownSetting: Field = { name: "value", label: "Value", type: { is: "json" } };

/** The fields of a record: of a setting, by its key. */
export function fieldsOf(kind: ConfigKind, key: string): readonly Field[] {
  return kind === "setting" ? [settingFields.get(key) ?? unknownSetting] : configFields[kind];
}

/** A record of the configuration in the preset's own field names. */
export type ConfigRecord = Readonly<Record<string, unknown>>;

/** Which record of its kind it is; as `governance.config_key`. */
export function configKey(kind: ConfigKind | "rule", record: ConfigRecord): string {
  const said = (name: string): string => {
    const value = record[name];
    return typeof value === "string" ? value : "";
  };
  switch (kind) {
    case "plan":
      return said("plan_id");
    case "pack":
      return said("pack_id");
    case "price":
      return `${said("provider")}/${said("model")}@${priceDate(said("effective_from"))}`;
    case "estimate":
      return said("task_type");
    case "topic":
      return said("topic");
    case "alert":
      return said("alert_name");
    case "setting":
      return said("key");
    case "rule":
      return said("rule_name");
    case "project":
      return "project";
  }
}

/** A first moment as the database names it: a day where it is midnight UTC, else the instant with microseconds. */
export function priceDate(given: string): string {
  const written = given === "" ? "1970-01-01" : given;
  if (/^\d{4}-\d{2}-\d{2}$/.test(written)) return written;
  const at = Date.parse(written);
  if (Number.isNaN(at)) return written;
  const iso = new Date(at).toISOString();
  // The database keeps microseconds; a Date keeps thousandths.
  const finer = /\.\d{3}(\d{1,3})/.exec(written)?.[1]?.padEnd(3, "0") ?? "000";
  return iso.endsWith("T00:00:00.000Z") && finer === "000"
    ? iso.slice(0, 10)
    : `${iso.slice(0, -1)}${finer}Z`;
}
