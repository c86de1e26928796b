/** The settings: each is a record of one field. */
import { channels, choice, emails, type Field, type FieldType, most, text } from "./field-types.ts";

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

const debtWords = { free: "whatever is free, at once", grants: "the next grants alone" };

/** What messages to users are about: `governance.message_topics`. */
const messageTopics = ["limits", "low_balance", "purchases", "subscription", "tokens_taken"];

/** Settings by name: what each is, and what applies where it is not set. */
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
  setting("high_usage_tokens", "High usage is a call above", number(0, most, "tokens"), 5000),
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
      max: 10,
      each: 20,
      pattern: /^(project|plan|pack|price|estimate|topic|alert|route|setting|rule)$/,
    },
    [],
    "One a line: rule, plan, pack, price, estimate, topic, alert, route, setting, project",
  ),
  setting("pay_debt_from", "Debt is paid from", choice(debtWords), "free"),
  setting(
    "complexity_words",
    "Words of complex messages",
    { is: "texts", max: 1000, each: 1000 },
    [],
    "One a line",
  ),
  setting("operator_emails", "Operators’ addresses", emails, [], "One a line"),
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
  setting("mail_from", "Sender of mails to users", text(200), null, "Such as Tokens <tokens@example.com>"),
  setting(
    "user_messages",
    "Mails that users get",
    {
      is: "texts",
      max: messageTopics.length,
      each: 32,
      pattern: new RegExp(`^(${messageTopics.join("|")})$`),
    },
    messageTopics,
    "One a line: limits, low_balance, purchases, subscription, tokens_taken",
  ),
  setting("default_language", "Language of users who chose none", text(2), null, "Such as en or de"),
  setting(
    "operator_channels",
    "Channels to operators",
    channels,
    ["email"],
    "One a line; for what no route is for",
  ),
  setting("user_warning_channels", "Users are warned by", channels, ["email"], "One a line"),
]);
