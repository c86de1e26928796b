/**
 * HTTP for apps: what a signed-in user may know about themselves, and what an admin sees and changes. Each route is one
 * database function; who may call it is decided here for admins, and by the database for users (their own token goes
 * through to it).
 *
 *   GET  /tokens/balance            GET /admin/rules     PUT /admin/rules  {rule, expected_version?}
 *   GET  /tokens/usage?days=7       GET /admin/alerts?before=&limit=
 *   GET  /tokens/alerts             GET /admin/cost/dashboard?days=30
 *   GET  /cost/summary?days=30      GET /admin/tokens/stats
 *   GET  /tokens/history?limit=50&before=
 *   GET  /preferences               PUT /preferences {language?, messages?: {topic: true or false}}
 *   POST /tokens/checkout {pack_id}: a Stripe Checkout session for a pack, answered as {url}
 *   GET, POST /unsubscribe?token=…: a page for the link in mails (the setting unsubscribe_url leads here), without a
 *     sign-in. Supabase shows pages of functions on domains of your own alone; on its own, use a page of your app that
 *     posts the token here.
 *
 * The paths of the source systems (/api/governance/…, /api/admin/governance/…, /api/tokens/…) are answered too.
 *
 * A user may ask GOVERNANCE_REQUESTS_PER_MINUTE times a minute (60), with however many tokens, counted by each instance
 * of the function.
 * Checkout takes STRIPE_SECRET_KEY (a restricted key that writes Checkout Sessions), and GOVERNANCE_RETURN_URL, the page
 * to which Stripe sends the buyer back.
 *
 * An admin is the service role's key, or a user whose app_metadata.governance_role is "admin" (only the service can set it).
 * Set GOVERNANCE_ALLOWED_ORIGIN to let one web app's pages call this; without it no page may.
 */

import { sameText } from "../_shared/same-text.ts";

interface Caller {
  /** What goes to the database as Authorization. */
  readonly bearer: string;
  /** The public key, or the service's. */
  readonly key: string;
  /** Name that audit entries carry; null for a user about themselves. */
  readonly operator: string | null;
}

class HttpError extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: unknown;
  readonly retryAfterSeconds: number | null;
  constructor(
    status: number,
    code: string,
    message: string,
    details: unknown = null,
    retryAfterSeconds: number | null = null,
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

const answerWithinMs = 10_000;
const largestBodyBytes = 256 * 1024;

function setting(name: string): string {
  const value = Deno.env.get(name);
  if (!value) throw new HttpError(500, "not_configured", `The function lacks its setting ${name}.`);
  return value;
}

async function ask(url: string, init: RequestInit): Promise<{ status: number; body: unknown }> {
  try {
    const response = await fetch(url, { ...init, signal: AbortSignal.timeout(answerWithinMs) });
    const text = await response.text();
    return { status: response.status, body: text === "" ? null : JSON.parse(text) };
  } catch {
    throw new HttpError(503, "unavailable", "The project did not answer. Try again in a moment.");
  }
}

async function call(
  caller: Caller,
  name: string,
  parameters: Record<string, unknown> = {},
): Promise<unknown> {
  const { status, body } = await ask(`${setting("SUPABASE_URL")}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: {
      apikey: caller.key,
      authorization: `Bearer ${caller.bearer}`,
      "content-type": "application/json",
    },
    body: JSON.stringify(parameters),
  });
  const subject = caller.key === caller.bearer ? null : subjectOf(caller.bearer);
  if (status !== 401 && subject !== null) count(subject);
  if (status >= 200 && status < 300) return body;
  const error = (body ?? {}) as {
    code?: string;
    hint?: string | null;
    message?: string;
    details?: string | null;
  };
  if (status >= 500)
    throw new HttpError(503, "unavailable", "The project could not answer. Try again in a moment.");
  // Values that the database cannot read never reach a function of ours: they are the caller's mistake all the same.
  const code = error.code?.startsWith("PT")
    ? (error.hint ?? "refused")
    : status === 401
      ? "not_signed_in"
      : status === 403
        ? "not_allowed"
        : "invalid_argument";
  throw new HttpError(status, code, error.message ?? "Refused.", error.details ?? null);
}

function bearerOf(request: Request): string {
  const bearer = /^Bearer ([\w\-.~+/]+=*)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  if (!bearer) throw new HttpError(401, "not_signed_in", "Send the user's token as Authorization: Bearer …");
  return bearer;
}

/**
 * Requests of this minute, by token and by user. A token that somebody made up must not use up the user's own: the user
 * it names counts only once the project has accepted the token.
 */
const asked = new Map<string, number>();
let minute = 0;
const rememberedCallers = 10_000;

function countOf(caller: string): number {
  const now = Math.floor(Date.now() / 60_000);
  if (now !== minute || asked.size >= rememberedCallers) asked.clear();
  minute = now;
  return asked.get(caller) ?? 0;
}

function count(caller: string): void {
  asked.set(caller, countOf(caller) + 1);
}

/** The user that a token names, checked by nobody yet. */
function subjectOf(bearer: string): string | null {
  try {
    const part = (bearer.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const { sub } = JSON.parse(atob(part)) as { sub?: unknown };
    return typeof sub === "string" ? `user ${sub}` : null;
  } catch {
    return null;
  }
}

function limit(bearer: string): void {
  count(bearer);
  const subject = subjectOf(bearer);
  const most = Number(Deno.env.get("GOVERNANCE_REQUESTS_PER_MINUTE") ?? 60);
  if (countOf(bearer) > most || (subject !== null && countOf(subject) >= most))
    throw new HttpError(
      429,
      "rate_limited",
      "Too many requests. Try again in a moment.",
      null,
      60 - Math.floor((Date.now() % 60_000) / 1_000),
    );
}

function user(request: Request): Caller {
  const bearer = bearerOf(request);
  limit(bearer);
  return { bearer, key: setting("SUPABASE_ANON_KEY"), operator: null };
}

interface Account {
  readonly id: string;
  readonly email?: string;
  readonly app_metadata?: Record<string, unknown>;
}

/** Whose token it is, by the auth server. */
async function accountOf(bearer: string): Promise<Account> {
  // The auth server says who it is, by its own records: a claim inside the token may be out of date.
  const { status, body } = await ask(`${setting("SUPABASE_URL")}/auth/v1/user`, {
    headers: { apikey: setting("SUPABASE_ANON_KEY"), authorization: `Bearer ${bearer}` },
  });
  const account = (body ?? {}) as Partial<Account>;
  if (status >= 500)
    throw new HttpError(503, "unavailable", "The project's sign-in did not answer. Try again in a moment.");
  if (status !== 200 || typeof account.id !== "string")
    throw new HttpError(401, "not_signed_in", "The token is not valid, or no longer.");
  return { ...account, id: account.id };
}

async function admin(request: Request): Promise<Caller> {
  const bearer = bearerOf(request);
  const key = setting("SUPABASE_SERVICE_ROLE_KEY");
  if (sameText(bearer, key)) return { bearer: key, key, operator: "service" };
  limit(bearer);
  const account = await accountOf(bearer);
  if (account.app_metadata?.["governance_role"] !== "admin") {
    throw new HttpError(403, "not_allowed", "This is for admins of governance alone.");
  }
  return { bearer: key, key, operator: account.email ?? account.id };
}

/** A whole number of the query; the database checks the range. */
function numberOf(url: URL, name: string, otherwise: number | null): number | null {
  const text = url.searchParams.get(name);
  if (text === null || text === "") return otherwise;
  if (!/^\d{1,15}$/.test(text)) throw new HttpError(400, "invalid_argument", `${name} is a whole number.`);
  return Number(text);
}

async function bodyOf(request: Request): Promise<Record<string, unknown>> {
  const bytes = new Uint8Array(await request.arrayBuffer());
  if (bytes.length > largestBodyBytes)
    throw new HttpError(413, "too_large", "The body is larger than 256 KB.");
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (value !== null && typeof value === "object" && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch {
    // Refused below, like any other body that is not an object.
  }
  throw new HttpError(400, "invalid_argument", "The body must be a JSON object.");
}

async function saveRule(request: Request): Promise<unknown> {
  const caller = await admin(request);
  const body = await bodyOf(request);
  const unknownKey = Object.keys(body).find((key) => !["rule", "expected_version"].includes(key));
  if (unknownKey)
    throw new HttpError(
      400,
      "invalid_argument",
      `${unknownKey} is unknown: the body has rule and expected_version.`,
    );
  return call(caller, "save_rule", {
    // The same key again answers the same and saves nothing.
    p_command_id: request.headers.get("idempotency-key") ?? crypto.randomUUID(),
    p_rule: body["rule"] ?? null,
    p_expected_version: body["expected_version"] ?? null,
    p_operator: caller.operator,
  });
}

async function costSummary(request: Request, url: URL): Promise<unknown> {
  const days = numberOf(url, "days", 30);
  const usage = (await call(user(request), "my_token_usage", { p_days: days })) as Record<string, unknown>;
  const { currency, cost_micros, cost_today_micros, cost_this_month_micros, by_model, by_day } = usage;
  return { days, currency, cost_micros, cost_today_micros, cost_this_month_micros, by_model, by_day };
}

interface Checkout {
  readonly checkout_id: number | null;
  readonly allowed: boolean;
  readonly reason: string | null;
  readonly retry_after_seconds: number | null;
  /** Why not, for the buyer, in their language. */
  readonly message: string | null;
  readonly pack: {
    readonly pack_id: string;
    readonly tokens: number;
    readonly price_minor: number;
    readonly currency: string;
  };
}

const checkoutStatus: Readonly<Record<string, number>> = { cooldown: 429, too_many_open_checkouts: 429 };

/** A Stripe Checkout session for a pack, for exactly its price; `process_stripe_event` credits it when it is paid. */
async function checkout(request: Request): Promise<unknown> {
  const { bearer } = user(request);
  const stripeKey = setting("STRIPE_SECRET_KEY");
  const returnUrl = setting("GOVERNANCE_RETURN_URL");
  const packId = (await bodyOf(request))["pack_id"];
  if (typeof packId !== "string")
    throw new HttpError(400, "invalid_argument", "The body names the pack: {pack_id}.");
  const { id } = await accountOf(bearer);
  const key = setting("SUPABASE_SERVICE_ROLE_KEY");
  const service: Caller = { bearer: key, key, operator: null };
  const begun = (await call(service, "begin_checkout", {
    p_user_id: id,
    p_pack_id: packId,
  })) as Checkout;
  if (!begun.allowed) {
    const reason = begun.reason ?? "refused";
    throw new HttpError(
      checkoutStatus[reason] ?? 403,
      reason,
      begun.message ?? "This purchase is not possible now.",
      null,
      begun.retry_after_seconds,
    );
  }
  const { pack } = begun;
  const metadata = { user_id: id, pack_id: pack.pack_id, tokens: String(pack.tokens) };
  const form = new URLSearchParams({
    mode: "payment",
    client_reference_id: id,
    success_url: returnUrl,
    cancel_url: returnUrl,
    "line_items[0][quantity]": "1",
    "line_items[0][price_data][currency]": pack.currency,
    "line_items[0][price_data][unit_amount]": String(pack.price_minor),
    "line_items[0][price_data][product_data][name]": `${pack.tokens.toLocaleString("en-US")} tokens`,
  });
  for (const [name, value] of Object.entries(metadata)) {
    form.set(`metadata[${name}]`, value);
    form.set(`payment_intent_data[metadata][${name}]`, value);
  }
  try {
    return { url: await paymentPage(stripeKey, form), pack };
  } catch (error) {
    // No page was made: the attempt counts for no limit. One that cannot be taken back counts for an hour.
    await call(service, "cancel_checkout", { p_checkout_id: begun.checkout_id }).catch(() =>
      console.error("A checkout that Stripe did not make stays open:", begun.checkout_id),
    );
    throw error;
  }
}

/** Makes Stripe's page for a payment; returns its address. */
async function paymentPage(stripeKey: string, form: URLSearchParams): Promise<string> {
  const stripe = Deno.env.get("STRIPE_API_URL") ?? "https://api.stripe.com";
  const { status, body } = await ask(`${stripe}/v1/checkout/sessions`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${stripeKey}`,
      "content-type": "application/x-www-form-urlencoded",
      "idempotency-key": crypto.randomUUID(),
    },
    body: form,
  });
  const url = ((body ?? {}) as { url?: unknown }).url;
  if (status === 200 && typeof url === "string") return url;
  console.error("Stripe made no Checkout session:", status);
  throw new HttpError(503, "unavailable", "The payment page could not be opened. Try again in a moment.");
}

interface TurnedOff {
  readonly is_valid: boolean;
  readonly language: string;
  readonly text: string;
  readonly button?: string;
}

const escapeHtml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

/**
 * The link in a mail. To look at it changes nothing: scanners of mails follow links. Its button, or the mail program's
 * own (RFC 8058), turns the mails off.
 */
async function turnOff(request: Request, url: URL): Promise<Response> {
  const token = url.searchParams.get("token") ?? "";
  // By the token: its number of bits stops guessing, and a mail program posts only once.
  limit(token);
  const key = setting("SUPABASE_SERVICE_ROLE_KEY");
  const said = (await call({ bearer: key, key, operator: null }, "turn_off_messages", {
    p_token: token,
    p_is_question: request.method === "GET",
  })) as TurnedOff;
  const isQuestion = request.method === "GET" && said.is_valid;
  const form = isQuestion
    ? `<form method="post"><button>${escapeHtml(said.button ?? "OK")}</button></form>`
    : "";
  const page = `<!doctype html><html lang="${escapeHtml(said.language)}"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><title>${escapeHtml(said.text)}</title><body style="font:16px/1.5 system-ui;max-width:32rem;margin:15vh auto;padding:0 1rem"><p>${escapeHtml(said.text)}</p>${form}</body></html>`;
  return new Response(page, {
    status: said.is_valid ? 200 : 404,
    headers: {
      "content-type": "text/html; charset=utf-8",
      "cache-control": "no-store",
      "referrer-policy": "no-referrer",
      "content-security-policy":
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
    },
  });
}

type Route = (request: Request, url: URL) => Promise<unknown>;
const routes: Readonly<Record<string, Route>> = {
  "GET tokens/balance": (request) => call(user(request), "my_token_balance"),
  "GET tokens/usage": (request, url) =>
    call(user(request), "my_token_usage", { p_days: numberOf(url, "days", 7) }),
  "GET tokens/alerts": (request) => call(user(request), "my_token_alerts"),
  "GET tokens/history": (request, url) =>
    call(user(request), "my_token_history", {
      p_limit: numberOf(url, "limit", 50),
      p_before_id: numberOf(url, "before", null),
    }),
  "POST tokens/checkout": checkout,
  "GET preferences": (request) => call(user(request), "my_preferences"),
  "PUT preferences": async (request) =>
    call(user(request), "my_preferences", { p_changes: await bodyOf(request) }),
  "GET unsubscribe": turnOff,
  "POST unsubscribe": turnOff,
  "GET cost/summary": costSummary,
  "GET admin/rules": async (request) => call(await admin(request), "list_rules"),
  "PUT admin/rules": saveRule,
  "GET admin/alerts": async (request, url) => {
    const caller = await admin(request);
    const [alerts, configured] = await Promise.all([
      call(caller, "console_alerts", {
        p_before_id: numberOf(url, "before", null),
        p_limit: numberOf(url, "limit", 50),
      }),
      call(caller, "console_cost_alerts"),
    ]);
    return { ...(alerts as object), cost_alerts: configured };
  },
  "GET admin/cost/dashboard": async (request, url) => {
    const caller = await admin(request);
    const [usage, alerts] = await Promise.all([
      call(caller, "console_usage_totals", { p_days: numberOf(url, "days", 30) }),
      call(caller, "console_cost_alerts"),
    ]);
    return { ...(usage as object), cost_alerts: alerts };
  },
  "GET admin/tokens/stats": async (request) => call(await admin(request), "console_token_stats"),
};

function corsHeaders(): Record<string, string> {
  const origin = Deno.env.get("GOVERNANCE_ALLOWED_ORIGIN");
  if (!origin) return {};
  return {
    "access-control-allow-origin": origin,
    "access-control-allow-headers": "authorization, apikey, content-type, x-client-info, idempotency-key",
    "access-control-allow-methods": "GET, POST, PUT, OPTIONS",
    vary: "origin",
  };
}

async function handle(request: Request): Promise<Response> {
  const headers = {
    "content-type": "application/json; charset=utf-8",
    "cache-control": "no-store",
    ...corsHeaders(),
  };
  if (request.method === "OPTIONS") return new Response(null, { status: 204, headers });
  try {
    const url = new URL(request.url);
    // The platform keeps the function's own name in the path, and /functions/v1 before it on some hosts.
    const path = url.pathname
      .replace(/^(\/functions\/v1)?\/governance(?=\/|$)/, "")
      .replace(/^\/+|\/+$/g, "")
      // As the source systems name them.
      .replace(/^api\/(?:(admin)\/)?(?:governance\/)?/, (_, isAdmin?: string) => (isAdmin ? "admin/" : ""));
    const route = Object.hasOwn(routes, `${request.method} ${path}`)
      ? routes[`${request.method} ${path}`]
      : undefined;
    if (!route) {
      const isKnown = Object.keys(routes).some((name) => name.endsWith(` ${path}`));
      throw isKnown
        ? new HttpError(405, "method_not_allowed", `${path} does not take ${request.method}.`)
        : new HttpError(404, "not_found", "There is no such address.");
    }
    const answer = await route(request, url);
    return answer instanceof Response
      ? answer
      : new Response(JSON.stringify(answer), { status: 200, headers });
  } catch (error) {
    const known =
      error instanceof HttpError ? error : new HttpError(500, "internal", "Something went wrong here.");
    if (known.status >= 500)
      console.error(known.code, known.message, error instanceof HttpError ? "" : error);
    const retryAfter = known.retryAfterSeconds;
    return new Response(
      JSON.stringify({ error: known.code, message: known.message, details: known.details }),
      {
        status: known.status,
        headers: { ...headers, ...(retryAfter === null ? {} : { "retry-after": String(retryAfter) }) },
      },
    );
  }
}

Deno.serve(handle);
