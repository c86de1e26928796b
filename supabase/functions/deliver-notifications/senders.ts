/**
 * The ways out: e-mail over SMTP, a Slack incoming webhook, a webhook of one's own. Each answers the outcome; none
 * throws.
 */
import nodemailer from "nodemailer";
import { mailOf, type Notification, oneLine, slackText, webhookBody } from "./words.ts";

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
  readonly channel: "email" | "slack" | "webhook";
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
const patience: Patience = { connectMs: 10_000, answerMs: 20_000, totalMs: 60_000 };

// ---- e-mail ----

export interface SmtpSettings {
  readonly host: string;
  readonly port: number;
  /** tls: from the first byte. starttls: before the first command, or not at all. none: in clear, inside one network. */
  readonly security: "tls" | "starttls" | "none";
  readonly login: { readonly user: string; readonly pass: string } | null;
  readonly from: string;
}

/** One address and nothing else: no list, no name, no comment. */
const address = /^[^\s\p{C}@<>(),;:\\"[\]]{1,64}@[^\s\p{C}@<>(),;:\\"[\]]{1,253}$/u;
const isAddress = (text: string): boolean => address.test(text);
/** A sender: an address, or a name with one in <>; in one line. */
export const isSender = (text: string): boolean =>
  !/[\p{Cc}\p{Zl}\p{Zp}]/u.test(text) && isAddress((/<([^<>]*)>\s*$/.exec(text)?.[1] ?? text).trim());

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
function messageId(notification: Notification, from: string): string {
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
      const own = notification.mail?.from ?? null;
      const from = own !== null && isSender(own) ? own : settings.from;
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
          from,
          to: recipients.map((recipient) => ({ name: "", address: recipient })),
          ...mailOf(notification),
          messageId: messageId(notification, from),
          date: new Date(notification.created_at),
          // No automatic reply should come back to it.
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

// ---- over HTTP ----

/** Seconds of a Retry-After header; its form with a date is not one that is used here. */
function retryAfter(response: Response): number {
  const seconds = Number(response.headers.get("retry-after") ?? "60");
  return Number.isFinite(seconds) ? Math.min(86_400, Math.max(1, Math.ceil(seconds))) : 60;
}

/** Posts to an address that is a secret; `refused` is what an answer below 500 means that is neither 2xx nor 429. */
async function post(
  name: string,
  url: string,
  request: { readonly headers: Readonly<Record<string, string>>; readonly body: string },
  waits: Patience,
  refused: (status: number) => { readonly isFinal: boolean; readonly isChannelDown: boolean },
): Promise<Outcome> {
  const failed = { sent: false, isFinal: false, isChannelDown: true } as const;
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", ...request.headers },
      body: request.body,
      // Nobody else learns the address.
      redirect: "manual",
      signal: AbortSignal.timeout(waits.answerMs),
    });
    const said = oneLine(await response.text(), 100);
    if (response.ok) return { sent: true };
    const error = `${name} answered ${response.status}${said ? ` (${said})` : ""}`;
    if (response.status === 429) return { ...failed, error, retryAfterSeconds: retryAfter(response) };
    if (response.status >= 500) return { ...failed, error };
    return { sent: false, error, ...refused(response.status) };
  } catch (error) {
    const { name: kind, message, cause } = error as Error & { cause?: { code?: string } };
    const why = kind === "TimeoutError" ? "no answer in time" : (cause?.code ?? message);
    return { ...failed, error: oneLine(`${name} could not be reached: ${why}`, 300) };
  }
}

export function slackSender(webhookUrl: string, waits: Patience = patience): Sender {
  return {
    channel: "slack",
    // Slack takes about one message a second.
    concurrency: 1,
    timeoutMs: waits.answerMs,
    send: (notification) =>
      post(
        "Slack",
        webhookUrl,
        // Plain text: nothing in it is to be formatted.
        { headers: {}, body: JSON.stringify({ text: slackText(notification), mrkdwn: false }) },
        waits,
        // The webhook is gone or archived, or takes no such message.
        () => ({ isFinal: true, isChannelDown: false }),
      ),
  };
}

export interface WebhookSettings {
  readonly url: string;
  /** What messages are signed with. */
  readonly key: Uint8Array<ArrayBuffer>;
  /** The key as it was given. */
  readonly secret: string;
}

const base64 = (bytes: Uint8Array): string => btoa(String.fromCharCode(...bytes));

/**
 * The headers of a signed message: HMAC-SHA-256 of `id.seconds.body`, as https://www.standardwebhooks.com has it, so that
 * receivers have a library for it. `seconds` since 1970.
 */
async function signWebhook(
  key: Uint8Array<ArrayBuffer>,
  id: string,
  seconds: number,
  body: string,
): Promise<Readonly<Record<string, string>>> {
  const signing = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, [
    "sign",
  ]);
  const signature = await crypto.subtle.sign(
    "HMAC",
    signing,
    new TextEncoder().encode(`${id}.${seconds}.${body}`),
  );
  return {
    "webhook-id": id,
    "webhook-timestamp": String(seconds),
    "webhook-signature": `v1,${base64(new Uint8Array(signature))}`,
  };
}

export function webhookSender({ url, key }: WebhookSettings, waits: Patience = patience): Sender {
  return {
    channel: "webhook",
    concurrency: 4,
    timeoutMs: waits.answerMs,
    async send(notification) {
      const body = webhookBody(notification);
      // The same message always has the same id: the receiver can drop the second.
      const id = `governance-${notification.notification_id}-${Date.parse(notification.created_at)}`;
      const headers = await signWebhook(key, id, Math.floor(Date.now() / 1000), body);
      return post("The webhook", url, { headers, body }, waits, (status) => ({
        // 410 means that it is gone for good. Anything else can be put right at the receiver.
        isFinal: status === 410,
        isChannelDown: ![400, 409, 413, 422].includes(status),
      }));
    },
  };
}
