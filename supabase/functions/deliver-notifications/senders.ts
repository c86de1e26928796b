/** The two ways out: e-mail over SMTP, and a Slack incoming webhook. Each says how sending went; none throws. */
import nodemailer from "nodemailer";
import { mailOf, type Notification, oneLine, slackText } from "./words.ts";

export type Outcome =
  | {
      readonly sent: true /** What went wrong beside it, e.g. one of several addresses. */;
      readonly note?: string;
    }
  | {
      readonly sent: false;
      readonly error: string;
      /** Trying again would end the same. */
      readonly isFinal: boolean;
      /** It is not this message: the next would fail as well. */
      readonly isChannelDown: boolean;
      readonly retryAfterSeconds?: number;
    };

export interface Sender {
  readonly channel: "email" | "slack";
  /** At once. */
  readonly concurrency: number;
  /** No attempt takes longer. */
  readonly timeoutMs: number;
  send(notification: Notification): Promise<Outcome>;
}

/** Waits for the other side, in milliseconds; tests wait less. */
export interface Patience {
  readonly connectMs: number;
  readonly answerMs: number;
  readonly totalMs: number;
}
export const patience: Patience = { connectMs: 10_000, answerMs: 20_000, totalMs: 60_000 };

// ---- e-mail ----

export interface SmtpSettings {
  readonly host: string;
  readonly port: number;
  /** tls: from the first byte. starttls: before the first command, or not at all. none: in clear, inside one network. */
  readonly security: "tls" | "starttls" | "none";
  readonly login: { readonly user: string; readonly pass: string } | null;
  readonly from: string;
  readonly appUrl: string | null;
}

/** One address and nothing else: no list, no name, no comment. */
const address = /^[^\s\p{C}@<>(),;:\\"[\]]{1,64}@[^\s\p{C}@<>(),;:\\"[\]]{1,253}$/u;
export const isAddress = (text: string): boolean => address.test(text);

interface SmtpError extends Error {
  readonly code?: string;
  readonly responseCode?: number;
  readonly command?: string;
  readonly rejectedErrors?: readonly SmtpError[];
}

function smtpFailure(error: SmtpError): Outcome {
  const { code, command, responseCode = 0 } = error;
  // About this message: its recipients, or its content. Whatever else goes wrong goes wrong for all.
  const isAboutMessage = command === "RCPT TO" || command === "DATA" || code === "EMESSAGE";
  const reply = isAboutMessage && responseCode > 0 && responseCode !== 421;
  return {
    sent: false,
    error: oneLine(`${code ?? error.name}: ${error.message}`, 500),
    isFinal: reply && responseCode >= 500,
    isChannelDown: !reply,
  };
}

/**
 * The same message always has the same Message-ID: should it be sent twice (the sender ended between sending and saying
 * so), mail systems can tell.
 */
export function messageId(notification: Notification, from: string): string {
  const domain = /@([^\s@<>]+)>?\s*$/.exec(from)?.[1] ?? "localhost";
  return `<governance-${notification.notification_id}-${Date.parse(notification.created_at)}@${domain}>`;
}

export function smtpSender(settings: SmtpSettings, waits: Patience = patience): Sender {
  const transport = nodemailer.createTransport({
    host: settings.host,
    port: settings.port,
    secure: settings.security === "tls",
    requireTLS: settings.security === "starttls",
    ignoreTLS: settings.security === "none",
    ...(settings.login ? { auth: settings.login } : {}),
    connectionTimeout: waits.connectMs,
    greetingTimeout: waits.connectMs,
    socketTimeout: waits.answerMs,
    dnsTimeout: waits.connectMs,
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return {
    channel: "email",
    concurrency: 4,
    timeoutMs: waits.totalMs,
    async send(notification) {
      const { recipients } = notification;
      const turnOff = notification.mail?.turn_off_url ?? null;
      if (recipients.length === 0)
        return {
          sent: false,
          error: "No address of an operator is known: name some in the setting operator_emails.",
          isFinal: false,
          isChannelDown: false,
        };
      const wrong = recipients.find((recipient) => !isAddress(recipient));
      if (wrong !== undefined)
        return {
          sent: false,
          error: `"${oneLine(wrong, 100)}" is not one e-mail address.`,
          isFinal: true,
          isChannelDown: false,
        };
      try {
        const info = await transport.sendMail({
          from: settings.from,
          to: recipients.map((recipient) => ({ name: "", address: recipient })),
          ...mailOf(notification, settings.appUrl),
          messageId: messageId(notification, settings.from),
          date: new Date(notification.created_at),
          // Nobody's holiday reply shall come back to it.
          headers: {
            "Auto-Submitted": "auto-generated",
            // Mail programs offer it as a button of theirs (RFC 8058).
            ...(turnOff === null
              ? {}
              : {
                  "List-Unsubscribe": `<${turnOff}>`,
                  "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
                }),
          },
          signal: AbortSignal.timeout(waits.totalMs),
        });
        const refused = info.rejected.map(String);
        return refused.length === 0 ? { sent: true } : { sent: true, note: `Refused: ${refused.join(", ")}` };
      } catch (error) {
        return smtpFailure(error as SmtpError);
      }
    },
  };
}

// ---- Slack ----

/** Seconds of a Retry-After header; its form with a date is not one that Slack uses. */
function retryAfter(response: Response): number {
  const seconds = Number(response.headers.get("retry-after") ?? "60");
  return Number.isFinite(seconds) ? Math.min(86_400, Math.max(1, Math.ceil(seconds))) : 60;
}

export function slackSender(webhookUrl: string, waits: Patience = patience): Sender {
  return {
    channel: "slack",
    // Slack takes about one message a second.
    concurrency: 1,
    timeoutMs: waits.answerMs,
    async send(notification) {
      const failed = { sent: false, isFinal: false, isChannelDown: true } as const;
      try {
        const response = await fetch(webhookUrl, {
          method: "POST",
          headers: { "content-type": "application/json" },
          // Plain text: what the text says is not to be formatted.
          body: JSON.stringify({ text: slackText(notification), mrkdwn: false }),
          // The address is a secret: nobody else learns it.
          redirect: "manual",
          signal: AbortSignal.timeout(waits.answerMs),
        });
        const said = oneLine(await response.text(), 100);
        if (response.ok) return { sent: true };
        const error = `Slack answered ${response.status}${said ? ` (${said})` : ""}`;
        if (response.status === 429) return { ...failed, error, retryAfterSeconds: retryAfter(response) };
        if (response.status >= 500) return { ...failed, error };
        // The webhook is gone or archived, or takes no such message.
        return { sent: false, error, isFinal: true, isChannelDown: false };
      } catch (error) {
        const { name, message, cause } = error as Error & { cause?: { code?: string } };
        const why = name === "TimeoutError" ? "no answer in time" : (cause?.code ?? message);
        return { ...failed, error: oneLine(`Slack could not be reached: ${why}`, 300) };
      }
    },
  };
}
