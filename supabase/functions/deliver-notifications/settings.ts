/** A deliverer's settings: from the environment alone, and never written to a log. */
import { isAddress, type SmtpSettings } from "./senders.ts";

export interface DeliverySettings {
  readonly smtp: SmtpSettings | null;
  readonly slackWebhookUrl: string | null;
}

/** What stands in the environment, by name. */
export type Environment = (name: string) => string | undefined;

/** A setting that cannot be used, in one sentence that holds no secret. */
export class SettingError extends Error {
  override readonly name = "SettingError";
}

const isLoopback = (host: string): boolean => /^(localhost|127(\.\d+){3}|\[?::1\]?)$/.test(host);

function readSmtp(text: string, from: string | undefined, appUrl: string | null): SmtpSettings {
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
  const sender = /<([^<>]*)>\s*$/.exec(from ?? "")?.[1] ?? from ?? "";
  if (!isAddress(sender.trim()) || /[\r\n]/.test(from ?? ""))
    throw new SettingError(
      'MAIL_FROM is not an address like alerts@example.com or "Alerts <alerts@example.com>".',
    );
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (isTls ? 465 : 587) : Number(url.port),
    security: isTls ? "tls" : tls === "none" ? "none" : "starttls",
    login,
    from: (from ?? "").trim(),
    appUrl,
  };
}

function readWebAddress(name: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || (url.protocol !== "https:" && !(url.protocol === "http:" && isLoopback(url.hostname))))
    throw new SettingError(`${name} is not an address that begins with https://.`);
  return url.href;
}

/** Reads SMTP_URL, MAIL_FROM, SLACK_WEBHOOK_URL and APP_URL; throws {@link SettingError}. */
export function readSettings(environment: Environment): DeliverySettings {
  const get = (name: string): string | null => environment(name)?.trim() || null;
  const [smtpUrl, slackUrl, appUrl] = [get("SMTP_URL"), get("SLACK_WEBHOOK_URL"), get("APP_URL")];
  if (smtpUrl === null && slackUrl === null)
    throw new SettingError(
      "Neither SMTP_URL nor SLACK_WEBHOOK_URL is set: there is no way to send anything.",
    );
  const app = appUrl === null ? null : readWebAddress("APP_URL", appUrl);
  return {
    smtp: smtpUrl === null ? null : readSmtp(smtpUrl, get("MAIL_FROM") ?? undefined, app),
    slackWebhookUrl: slackUrl === null ? null : readWebAddress("SLACK_WEBHOOK_URL", slackUrl),
  };
}

/** Takes every secret, in each form it may appear in, out of a text. */
export function createRedactor({ smtp, slackWebhookUrl }: DeliverySettings, serviceRoleKey: string) {
  const path = slackWebhookUrl === null ? "" : new URL(slackWebhookUrl).pathname;
  const secrets = [serviceRoleKey, slackWebhookUrl, path, smtp?.login?.pass]
    .flatMap((secret) => (secret && secret.length > 3 ? [secret, encodeURIComponent(secret)] : []))
    .sort((a, b) => b.length - a.length);
  return (text: string): string =>
    secrets.reduce((rest, secret) => rest.replaceAll(secret, "[secret]"), text);
}
