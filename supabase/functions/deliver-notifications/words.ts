/**
 * The words of a message. Names, rules and alerts are other people's texts: none of them may become a header or a link.
 */

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
  /** A mail to a user, whole, in their language, as the database wrote it; null to operators. */
  readonly mail?: {
    readonly subject: string;
    readonly text: string;
    readonly html: string;
    /** The sender that the project names; null: the deliverer's own. */
    readonly from: string | null;
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

/** `5 March 2027, 14:30 UTC`. */
function moment(at: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return oneLine(at);
  const day = date.toLocaleDateString("en-GB", {
    day: "numeric",
    month: "long",
    year: "numeric",
    timeZone: "UTC",
  });
  return `${day}, ${date.toISOString().slice(11, 16)} UTC`;
}

/** The facts of an alert, a line each, for operators. */
function factLines({ payload }: Notification): readonly string[] {
  const { details, user_id: userId, display_name: name, severity, at } = payload;
  const lines: (string | null)[] = [
    severity ? `Severity: ${oneLine(severity)}` : null,
    at ? `At: ${moment(at)}` : null,
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

interface Mail {
  readonly subject: string;
  readonly text: string;
  readonly html?: string;
}

export function mailOf(notification: Notification): Mail {
  const { audience, body, mail, payload } = notification;
  if (audience === "operators")
    return {
      subject: oneLine(`[${payload.severity ?? "alert"}] ${notification.subject}`),
      text: `${[oneLine(body, 500), "", ...factLines(notification)].join("\n")}\n`,
    };
  // The database writes what users read (governance.write_mail): the console shows the same before it is sent.
  if (mail)
    return {
      subject: oneLine(mail.subject),
      text: mail.text
        .split("\n")
        .map((line) => oneLine(line, 1_000))
        .join("\n"),
      html: mail.html,
    };
  const sentence = oneLine(body, 500);
  return { subject: oneLine(sentence.replace(/\.$/, "")), text: `${sentence}\n` };
}

/** Slack reads `&`, `<` and `>` as its own signs: mentions, channels and links cannot be made of what is escaped. */
function slackEscape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

export function slackText(notification: Notification): string {
  const head = `[${oneLine(notification.payload.severity ?? "alert")}] ${oneLine(notification.body, 500)}`;
  return slackEscape(
    [head, ...factLines(notification).filter((line) => !line.startsWith("Severity"))].join("\n"),
  );
}

/** The message of a webhook: the alert as it was raised, for programs. Text is data there, and is left as it is. */
export function webhookBody(notification: Notification): string {
  const { audience, body, payload } = notification;
  return JSON.stringify({
    type: "governance.alert",
    timestamp: payload.at ?? notification.created_at,
    data: {
      audience,
      message: body,
      kind: payload.kind ?? null,
      severity: payload.severity ?? null,
      user_id: payload.user_id ?? null,
      display_name: payload.display_name ?? null,
      threshold: payload.threshold ?? null,
      value: payload.value ?? null,
      details: payload.details ?? {},
    },
  });
}
