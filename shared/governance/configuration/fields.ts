/**
 * What a configuration is made of: each kind of record with its fields, described once. The console's forms, checks,
 * differences and words follow from these tables; the database checks the same again.
 */
import { alertKinds, alertMetrics, alertPeriodWords } from "../alerts/kinds.ts";
import { channels, choice, emails, type Field, type FieldType, most, text, tokens } from "./field-types.ts";
import { settingFields } from "./setting-fields.ts";

/** The kinds of record, in the order in which they are shown. Rules are records of their own kind, elsewhere. */
export const configKinds = [
  "plan",
  "pack",
  "price",
  "estimate",
  "topic",
  "alert",
  "route",
  "setting",
  "project",
] as const;
export type ConfigKind = (typeof configKinds)[number];

const perMillion: FieldType = { is: "whole", min: 0, max: 1_000_000_000_000_000, money: "micros" };
const percents: FieldType = { is: "numbers", min: 1, max: 100, whole: true };

// Tables, so that every word of them has its German: cli/language/what-is-text.ts.
const cancelWords = { expire: "expire", keep: "stay until their month ends", convert: "stay for good" };
const failWords = { closed: "are refused", open: "are let through" };
const severityWords = {
  info: "info: all alerts",
  warning: "warning, and what is critical",
  critical: "critical alone",
};

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
      type: choice(cancelWords),
      otherwise: "expire",
    },
    {
      name: "fail_mode",
      label: "Without an answer, calls",
      hint: "What the guard does where the project cannot be asked",
      type: choice(failWords),
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
    price("batch_input_micros_per_million", "Input, batch and flex", "as input"),
    price("batch_output_micros_per_million", "Output, batch and flex", "as output"),
    price("priority_input_micros_per_million", "Input, priority", "as input"),
    price("priority_output_micros_per_million", "Output, priority", "as output"),
    {
      name: "long_context_above_tokens",
      label: "Long context above",
      hint: "A call that reads more costs as below",
      type: tokens(1),
      otherwise: null,
      empty: "no other price",
    },
    price("long_context_input_micros_per_million", "Input, long context", "as input"),
    price("long_context_output_micros_per_million", "Output, long context", "as output"),
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
      type: {
        is: "choice",
        of: Object.entries(alertMetrics).map(([name, { words }]) => [name, words]),
      },
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
      type: choice(alertPeriodWords),
      otherwise: "month",
    },
    {
      name: "budget",
      label: "Budget",
      hint: "In tokens",
      type: { is: "whole", min: 1, max: most },
      otherwise: null,
      empty: "none: thresholds are amounts",
    },
    {
      name: "thresholds",
      label: "Thresholds",
      hint: "Percents of the budget, or amounts (costs in micro-units: 1,000,000 is one of the currency); one alert for each in a period",
      type: { is: "numbers", min: 0, max: most, whole: false },
    },
    {
      name: "channels",
      label: "Sent by",
      hint: "email, slack, webhook or a name of yours, one a line",
      type: channels,
      otherwise: [],
      empty: "nobody",
    },
  ],
  route: [
    { name: "route", label: "Name", type: text(), isName: true },
    {
      name: "severity",
      label: "From severity",
      type: choice(severityWords),
      otherwise: "info",
    },
    {
      name: "kinds",
      label: "Kinds",
      type: { is: "choices", of: Object.entries(alertKinds).map(([name, { title }]) => [name, title]) },
      otherwise: [],
      empty: "all that need an operator",
    },
    {
      name: "channels",
      label: "Sent by",
      hint: "email, slack, webhook or a name of yours, one a line",
      type: channels,
    },
    {
      name: "emails",
      label: "Addresses",
      hint: "For e-mail, one a line",
      type: emails,
      otherwise: [],
      empty: "the operators’ addresses",
    },
  ],
  project: [
    { name: "name", label: "Preset", hint: "The name that this configuration goes by", type: text() },
    { name: "currency", label: "Currency", type: text(3), otherwise: "usd" },
    { name: "default_plan", label: "Plan of new users", type: { is: "plan" } },
  ],
};

const unknownSetting: Field = { name: "value", label: "Value", type: { is: "json" } };

/** The fields of a record: of a setting, by its key; a budget of costs is money. */
export function fieldsOf(
  kind: ConfigKind,
  key: string,
  record: ConfigRecord | null = null,
): readonly Field[] {
  if (kind === "setting") return [settingFields.get(key) ?? unknownSetting];
  const fields = configFields[kind];
  return kind === "alert" && record?.["metric"] === "cost_micros" ? fields.map(inMoney) : fields;
}

function inMoney(field: Field): Field {
  if (field.name !== "budget" || field.type.is !== "whole") return field;
  const { hint: _, ...rest } = field;
  return { ...rest, type: { ...field.type, money: "micros" } };
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
    case "route":
      return said("route");
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
