/** A deliverer's settings: from the environment alone, and never written to a log. */
import { isSender, type SmtpSettings, type WebhookSettings } from "./senders.ts";

export interface DeliverySettings {
  readonly smtp: SmtpSettings | null;
  readonly slackWebhookUrl: string | null;
  readonly webhook: WebhookSettings | null;
}

/** The environment's variables, by name. */
export type Environment = (name: string) => string | undefined;

/** A setting that cannot be used, in one sentence that holds no secret. */
export class SettingError extends Error {
  override readonly name = "SettingError";
}

const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|\[?::1\]?)$/.test(host);

function readSmtp(text: string, from: string | undefined): SmtpSettings {
  if (!URL.canParse(text) || !/^smtps?:\/\/[^/]/.test(text))
    throw new SettingError("SMTP_URL is not an address like smtps://user:password@mail.example.com:465.");
  const url = new URL(text);
  const isTls = url.protocol === "smtps:";
  const tls = url.searchParams.get("tls");
  if (tls !== null && (tls !== "none" || isTls))
    throw new SettingError(
      "SMTP_URL takes ?tls=none alone, and only with smtp://: without it, STARTTLS is required.",
    );
  const login =
    url.username === ""
      ? null
      : { user: decodeURIComponent(url.username), pass: decodeURIComponent(url.password) };
  if (login && tls === "none" && !isLoopback(url.hostname))
    throw new SettingError("SMTP_URL would send its password in clear: leave out ?tls=none, or the login.");
  if (!isSender(from ?? ""))
    throw new SettingError(
      'MAIL_FROM is not an address like alerts@example.com or "Alerts <alerts@example.com>".',
    );
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (isTls ? 465 : 587) : Number(url.port),
    security: isTls ? "tls" : tls === "none" ? "none" : "starttls",
    login,
    from: (from ?? "").trim(),
  };
}

function readWebAddress(name: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.hostname))))
    throw new SettingError(`${name} is not an address that begins with https://.`);
  return url.href;
}

function readWebhook(url: string, secret: string | null): WebhookSettings {
  const encoded = /^whsec_([A-Za-z0-9+/]+={0,2})$/.exec(secret ?? "")?.[1];
  let bytes: string | null = null;
  try {
    bytes = encoded === undefined ? null : atob(encoded);
  } catch {
    // Not base64: as if it were missing.
  }
  if (secret === null || bytes === null || bytes.length < 24)
    throw new SettingError(
      "WEBHOOK_SECRET is not a key of 24 bytes or more as base64 behind whsec_: make one with `echo whsec_$(openssl rand -base64 32)`.",
    );
  const key = Uint8Array.from(bytes, (letter) => letter.charCodeAt(0));
  return { url: readWebAddress("WEBHOOK_URL", url), key, secret };
}

/** Reads SMTP_URL, MAIL_FROM, SLACK_WEBHOOK_URL, WEBHOOK_URL and WEBHOOK_SECRET; throws {@link SettingError}. */
export function readSettings(environment: Environment): DeliverySettings {
  const get = (name: string): string | null => environment(name)?.trim() || null;
  const [smtpUrl, slackUrl, webhookUrl] = [get("SMTP_URL"), get("SLACK_WEBHOOK_URL"), get("WEBHOOK_URL")];
  if (smtpUrl === null && slackUrl === null && webhookUrl === null)
    throw new SettingError(
      "None of SMTP_URL, SLACK_WEBHOOK_URL and WEBHOOK_URL is set: there is no way to send anything.",
    );
  return {
    smtp: smtpUrl === null ? null : readSmtp(smtpUrl, get("MAIL_FROM") ?? undefined),
    slackWebhookUrl: slackUrl === null ? null : readWebAddress("SLACK_WEBHOOK_URL", slackUrl),
    webhook: webhookUrl === null ? null : readWebhook(webhookUrl, get("WEBHOOK_SECRET")),
  };
}

/** Takes every secret, in each form it may appear in, out of a text. */
export function createRedactor({ smtp, slackWebhookUrl, webhook }: DeliverySettings, serviceRoleKey: string) {
  const addresses = [slackWebhookUrl, webhook?.url ?? null].flatMap((url) =>
    url === null ? [] : [url, new URL(url).pathname, new URL(url).search],
  );
  const secrets = [serviceRoleKey, ...addresses, smtp?.login?.pass, webhook?.secret, webhook?.secret.slice(6)]
    .flatMap((secret) => (secret && secret.length > 3 ? [secret, encodeURIComponent(secret)] : []))
    .sort((a, b) => b.length - a.length);
  return (text: string): string =>
    secrets.reduce((rest, secret) => rest.replaceAll(secret, "[secret]"), text);
}
