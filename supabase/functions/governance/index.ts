/**
 * HTTP for apps: what a signed-in user may know about themselves, and what an admin sees and changes. Each route is one
 * database function; who may call it is decided here for admins, and by the database for users (their own token goes
 * through to it).
 *
 *   GET  /tokens/balance            GET /admin/rules     PUT /admin/rules  {rule, expected_version?}
 *   GET  /tokens/usage?days=7       GET /admin/alerts?before=&limit=
 *   GET  /tokens/alerts             GET /admin/cost/dashboard?days=30
 *   GET  /cost/summary?days=30      GET /admin/tokens/stats
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
  constructor(status: number, code: string, message: string, details: unknown = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.details = details;
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

function user(request: Request): Caller {
  return { bearer: bearerOf(request), key: setting("SUPABASE_ANON_KEY"), operator: null };
}

async function admin(request: Request): Promise<Caller> {
  const bearer = bearerOf(request);
  const key = setting("SUPABASE_SERVICE_ROLE_KEY");
  if (sameText(bearer, key)) return { bearer: key, key, operator: "service" };
  // The auth server says who it is, by its own records: a claim inside the token may be out of date.
  const { status, body } = await ask(`${setting("SUPABASE_URL")}/auth/v1/user`, {
    headers: { apikey: setting("SUPABASE_ANON_KEY"), authorization: `Bearer ${bearer}` },
  });
  const account = (body ?? {}) as { id?: string; email?: string; app_metadata?: Record<string, unknown> };
  if (status >= 500)
    throw new HttpError(503, "unavailable", "The project's sign-in did not answer. Try again in a moment.");
  if (status !== 200 || typeof account.id !== "string")
    throw new HttpError(401, "not_signed_in", "The token is not valid, or no longer.");
  if (account.app_metadata?.["governance_role"] !== "admin") {
    throw new HttpError(403, "not_allowed", "This is for admins of governance alone.");
  }
  return { bearer: key, key, operator: account.email ?? account.id };
}

/** A whole number of the query; the database says which are in range. */
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
    // Told below, as any other body that is no object.
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

type Route = (request: Request, url: URL) => Promise<unknown>;
const routes: Readonly<Record<string, Route>> = {
  "GET tokens/balance": (request) => call(user(request), "my_token_balance"),
  "GET tokens/usage": (request, url) =>
    call(user(request), "my_token_usage", { p_days: numberOf(url, "days", 7) }),
  "GET tokens/alerts": (request) => call(user(request), "my_token_alerts"),
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
    "access-control-allow-methods": "GET, PUT, OPTIONS",
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
      .replace(/^\/+|\/+$/g, "");
    const route = Object.hasOwn(routes, `${request.method} ${path}`)
      ? routes[`${request.method} ${path}`]
      : undefined;
    if (!route) {
      const isKnown = Object.keys(routes).some((name) => name.endsWith(` ${path}`));
      throw isKnown
        ? new HttpError(405, "method_not_allowed", `${path} does not take ${request.method}.`)
        : new HttpError(404, "not_found", "There is no such address.");
    }
    return new Response(JSON.stringify(await route(request, url)), { status: 200, headers });
  } catch (error) {
    const known =
      error instanceof HttpError ? error : new HttpError(500, "internal", "Something went wrong here.");
    if (known.status >= 500)
      console.error(known.code, known.message, error instanceof HttpError ? "" : error);
    return new Response(
      JSON.stringify({ error: known.code, message: known.message, details: known.details }),
      { status: known.status, headers },
    );
  }
}

Deno.serve(handle);
