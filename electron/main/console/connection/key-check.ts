/** What is known of an address and a key before anything is sent. */
import type { Failure } from "../../../../shared/contract/index.ts";
import { sayPeriod } from "../../../../shared/governance/rules/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";

const keyAdvice =
  "In the project's dashboard, under Settings, API keys, copy the secret key (sb_secret_…) or the service_role key.";

const refuse = (code: string, message: string, advice: string | null = keyAdvice) =>
  fail<Failure>({ code, message, advice, details: null });

const loopbackHosts: ReadonlySet<string> = new Set(["127.0.0.1", "localhost", "[::1]"]);

/** The project's origin, e.g. `https://abc.supabase.co`. */
export function parseProjectUrl(text: string): Result<string, Failure> {
  const advice = "It looks like https://<ref>.supabase.co, and is in the project's settings.";
  const trimmed = text.trim();
  if (trimmed === "") return refuse("wrong_url", "The project's address is missing.", advice);
  const withScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(trimmed) ? trimmed : `https://${trimmed}`;
  if (!URL.canParse(withScheme)) return refuse("wrong_url", "This is not an address.", advice);
  const url = new URL(withScheme);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return refuse("wrong_url", "A project's address begins with https://, this one does not.", advice);
  }
  if (url.username || url.password) {
    return refuse("wrong_url", "The address must not hold a user name or password.", advice);
  }
  if (/^(www\.|app\.)?supabase\.(com|io)$/.test(url.hostname)) {
    const ref = /\/project\/([a-z0-9]+)/.exec(url.pathname)?.[1];
    const meant = ref ? ` This project's is https://${ref}.supabase.co.` : "";
    return refuse(
      "wrong_url",
      "This is the address of Supabase's dashboard, not of a project.",
      `${advice}${meant}`,
    );
  }
  if (url.protocol === "http:" && !loopbackHosts.has(url.hostname)) {
    return refuse(
      "insecure_url",
      "Over http the key would cross the network in the clear, so nothing was sent.",
      "Use https. Plain http is for a project on this machine alone.",
    );
  }
  if (!/^\/?$|^\/(rest|auth|realtime|storage)\/v1\/?$/.test(url.pathname)) {
    return refuse("wrong_url", "The address has a path; a project's has none.", advice);
  }
  return ok(url.origin);
}

/** `jwt`: a legacy key, `secret`: `sb_secret_…`. */
type KeyKind = "jwt" | "secret";

/** Answers the kind of a service key for the project at `origin`. */
export function checkKey(key: string, origin: string, now: Date): Result<KeyKind, Failure> {
  if (key === "") return refuse("missing_key", "The key is missing.");
  if (/\s/.test(key)) return refuse("malformed_key", "The key has spaces or line breaks inside.");
  if (/[^\x21-\x7e]/.test(key)) {
    return refuse(
      "malformed_key",
      "The key has characters that no key contains. It may have been copied while dots stood in its place.",
    );
  }
  if (key.startsWith("sb_publishable_")) {
    return refuse("publishable_key", "This is the publishable key, which may not govern.");
  }
  if (key.startsWith("sbp_")) {
    return refuse("malformed_key", "This is a personal access token, not a project's key.");
  }
  if (key.startsWith("sb_secret_")) {
    if (key.length < "sb_secret_".length + 20) return refuse("truncated_key", "The key is cut short.");
    return ok("secret");
  }
  if (key.startsWith("eyJ")) return checkJwt(key, origin, now);
  return refuse("malformed_key", "This is not a Supabase key.");
}

function checkJwt(key: string, origin: string, now: Date): Result<KeyKind, Failure> {
  const parts = key.split(".");
  if (parts.length < 3)
    return refuse("truncated_key", "The key is cut short: it has not all of its three parts.");
  if (parts.length > 3) return refuse("malformed_key", "This is not a Supabase key: it has too many parts.");
  const [header, payload, signature] = parts as [string, string, string];
  const claims = decode(payload);
  if (!decode(header) || !claims) return refuse("malformed_key", "The key is damaged: it cannot be read.");
  // An HS256 signature is 32 bytes: 43 characters.
  if (signature.length < 43) return refuse("truncated_key", "The key is cut short: its end is missing.");
  const { role, exp, ref } = claims;
  if (role === "anon" || role === "authenticated") {
    return refuse("wrong_role", `This is the key of the role ${role}, which may not govern.`);
  }
  if (role !== "service_role") return refuse("wrong_role", "This key is not a service-role key.");
  if (typeof exp === "number" && exp * 1000 <= now.getTime()) {
    const day = sayPeriod(new Date(exp * 1000).toISOString().slice(0, 10), "en");
    return refuse("expired_key", `This key expired on ${day}.`);
  }
  const hosted = /^([a-z0-9]+)\.supabase\.(co|in|red)$/.exec(new URL(origin).hostname)?.[1];
  if (hosted && typeof ref === "string" && ref !== hosted) {
    return refuse(
      "other_project",
      `This key is of the project ${ref.slice(0, 40)}, the address is of ${hosted}.`,
    );
  }
  return ok("jwt");
}

function decode(part: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return value !== null && typeof value === "object" ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
