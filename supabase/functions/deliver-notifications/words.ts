/** What a message says. Names, rules and alerts are other people's texts: none of them may become a header or a link. */

/** A message as `claim_notifications` gives it. */
export interface Notification {
  readonly notification_id: number;
  readonly channel: string;
  readonly audience: "operators" | "user";
  /** Addresses; empty where none is known. */
  readonly recipients: readonly string[];
  readonly subject: string;
  readonly body: string;
  readonly payload: {
    readonly kind?: string;
    readonly severity?: string;
    readonly threshold?: number | null;
    readonly value?: number | null;
    readonly user_id?: string | null;
    readonly display_name?: string | null;
    readonly details?: Readonly<Record<string, unknown>> | null;
    /** When the alert was raised. */
    readonly at?: string;
  };
  /** Of a message to a user: what a mail says around its sentence, in the user's language; null to operators. */
  readonly mail?: {
    readonly hello: string;
    /** What to do next, with its link. */
    readonly lines: readonly string[];
    readonly why: string;
    readonly turn_off: string;
    /** Turns mails like this off, without a sign-in; null where the project has no such address. */
    readonly turn_off_url: string | null;
  } | null;
  /** ISO instant. */
  readonly created_at: string;
}

/**
 * One line: no line breaks, no control or invisible characters (but the joiners that scripts and emoji need), no half of
 * a surrogate pair.
 */
export function oneLine(text: string, length = 200): string {
  const clean = text
    .replace(/(?:(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}])+/gu, " ")
    .replace(/\s+/g, " ")
    .trim();
  return Array.from(clean).slice(0, length).join("");
}

/** A value of a record as text; anything that is none reads "?". */
const text = (value: unknown): string =>
  typeof value === "string" || typeof value === "number" ? oneLine(String(value)) : "?";

const count = (value: unknown): string =>
  typeof value === "number" ? value.toLocaleString("en") : text(value);

/** Money from micro-units, tokens as they are. */
function amount(value: unknown, details: Readonly<Record<string, unknown>>): string {
  if (details["metric"] !== "cost_micros" || typeof value !== "number") return `${count(value)} tokens`;
  return `${(value / 1e6).toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })} ${text(details["currency"]).toUpperCase()}`;
}

/** The facts of an alert, a line each, for operators. */
function factLines({ payload }: Notification): readonly string[] {
  const { details, user_id: userId, display_name: name, severity, at } = payload;
  const lines: (string | null)[] = [
    severity ? `Severity: ${oneLine(severity)}` : null,
    at ? `At: ${oneLine(at)}` : null,
    userId ? `User: ${name ? `${oneLine(name, 100)} (${oneLine(userId)})` : oneLine(userId)}` : null,
  ];
  if (details?.["budget"] !== undefined && details["budget"] !== null)
    lines.push(`Used: ${amount(details["amount"], details)} of ${amount(details["budget"], details)}`);
  for (const [name, label] of [
    ["decision_id", "Decision"],
    ["request_id", "Request"],
    ["event_id", "Stripe event"],
    ["charge_id", "Charge"],
  ] as const)
    if (details?.[name] !== undefined && details[name] !== null)
      lines.push(`${label}: ${text(details[name])}`);
  return lines.filter((line) => line !== null);
}

export interface Mail {
  readonly subject: string;
  readonly text: string;
}

/** `appUrl`: where users manage their account, in mails to them; null for none. */
export function mailOf(notification: Notification, appUrl: string | null): Mail {
  const { payload } = notification;
  if (notification.audience === "operators") {
    const said = oneLine(notification.body, 500);
    return {
      subject: oneLine(`[${payload.severity ?? "alert"}] ${notification.subject}`),
      text: `${[said, "", ...factLines(notification)].join("\n")}\n`,
    };
  }
  // The database words what users read (governance.user_mail): the one catalogue of their words is there.
  const sentence = oneLine(notification.body, 500);
  const { mail } = notification;
  const lines = mail?.lines ?? [];
  const said = [
    oneLine(mail?.hello ?? ""),
    sentence,
    lines.map((line) => oneLine(line, 1_000)).join("\n"),
    appUrl ?? "",
    mail ? `${oneLine(mail.why)}\n${oneLine(mail.turn_off, 1_000)}` : "",
  ];
  return {
    subject: oneLine(sentence.replace(/\.$/, "")),
    text: `${said.filter((part) => part !== "").join("\n\n")}\n`,
  };
}

/** Slack reads `&`, `<` and `>` as its own signs: mentions, channels and links cannot be made of what is escaped. */
export function slackEscape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

export function slackText(notification: Notification): string {
  const head = `[${oneLine(notification.payload.severity ?? "alert")}] ${oneLine(notification.body, 500)}`;
  return slackEscape(
    [head, ...factLines(notification).filter((line) => !line.startsWith("Severity"))].join("\n"),
  );
}
