/**
 * Read-only Stripe client, on Stripe's own SDK: it asks for lists and single objects and changes nothing, waits as long
 * as Stripe says, ends at once when cancelled, and turns every refusal into a message for a person.
 */
import Stripe from "stripe";
import type { Failure } from "../../../../shared/contract/index.ts";
import {
  stripeRecord,
  type StripeRecords,
  type StripeResource,
} from "../../../../shared/governance/reconciliation/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { redact } from "../../backend/redact.ts";

/** Where Stripe answers: another place than its own is for tests alone, and must be this machine. */
export interface StripeEndpoint {
  readonly host: "127.0.0.1";
  readonly port: number;
  readonly protocol: "http";
}

/** The place named in the environment, for tests: on this machine, or none. */
export function stripeEndpoint(
  environment: Readonly<Record<string, string | undefined>>,
): Pick<StripeClientOptions, "endpoint"> {
  const port = /^http:\/\/127\.0\.0\.1:(\d{1,5})$/.exec(environment["STRIPE_API_BASE"] ?? "")?.[1];
  return port ? { endpoint: { host: "127.0.0.1", port: Number(port), protocol: "http" } } : {};
}

export interface StripeClientOptions {
  readonly key: string;
  readonly signal?: AbortSignal;
  readonly endpoint?: StripeEndpoint;
  /** First pause after a refusal for too many requests, where Stripe does not say how long; doubled each time. */
  readonly backoffMs?: number;
  readonly timeoutMs?: number;
  readonly onRequest?: () => void;
}

/** What a page or a single object is asked with. */
interface PageQuery {
  readonly from: number;
  readonly through: number;
  readonly after: string | null;
}

interface Page<R extends StripeResource> {
  readonly records: readonly StripeRecords[R][];
  readonly has_more: boolean;
}

/** The API version of the answers; the account's own may be another. */
export const stripeApiVersion: string = Stripe.API_VERSION;

/** Permissions of a restricted key, as the dashboard's form names and the API calls them. */
export const stripePermissions: Readonly<
  Record<StripeResource, { readonly row: string; readonly name: string }>
> = {
  balance_transactions: { row: "Balance transaction sources", name: "rak_balance_transaction_source_read" },
  charges: { row: "Charges and refunds", name: "rak_charge_read" },
  refunds: { row: "Charges and refunds", name: "rak_charge_read" },
  disputes: { row: "Disputes", name: "rak_dispute_read" },
  checkout_sessions: { row: "Checkout sessions", name: "rak_checkout_session_read" },
  invoices: { row: "Invoices", name: "rak_invoice_read" },
};

const pageSize = 100;
const maxRefusals = 8;
const maxPauseMs = 60_000;

export function createStripeClient(options: StripeClientOptions) {
  const { key, signal, backoffMs = 1_000, timeoutMs = 30_000 } = options;
  let answeredAt: number | null = null;
  const stripe = new Stripe(key, {
    ...options.endpoint,
    maxNetworkRetries: 3,
    timeout: timeoutMs,
    telemetry: false,
    appInfo: { name: "Token Governance" },
    // A fetch of our own, because a cancelled reading must not wait for an answer that is on its way.
    httpClient: Stripe.createFetchHttpClient((async (url: string, init: RequestInit) => {
      options.onRequest?.();
      const response = await fetch(url, {
        ...init,
        signal: AbortSignal.any([signal, init.signal].filter((one) => one !== undefined && one !== null)),
      });
      const date = Date.parse(response.headers.get("date") ?? "");
      if (!Number.isNaN(date)) answeredAt = date / 1000;
      return response;
    }) as typeof fetch),
  });

  /** One request, repeated while Stripe asks to wait. */
  async function ask<T>(what: string, request: () => Promise<T>): Promise<Result<T, Failure>> {
    for (let refusals = 0; ; refusals++) {
      try {
        signal?.throwIfAborted();
        return ok(await untilAborted(request()));
      } catch (error) {
        if (signal?.aborted) return fail(cancelled);
        if (!(error instanceof Stripe.errors.StripeRateLimitError) || refusals >= maxRefusals)
          return fail(failureOf(error, what, key));
        const asked = Number(error.headers?.["retry-after"]);
        const pauseMs = Math.min(asked >= 0 ? asked * 1_000 : backoffMs * 2 ** refusals, maxPauseMs);
        // Those who were refused together should not come back together.
        await untilAborted(pause(pauseMs * (1 + Math.random() / 4))).catch(() => undefined);
      }
    }
  }

  /** The SDK rests between its own attempts, and does not notice the abort signal meanwhile. */
  async function untilAborted<T>(work: Promise<T>): Promise<T> {
    if (!signal) return await work;
    let stop = (): void => {};
    const aborted = new Promise<never>((_resolve, reject) => {
      stop = () => reject(signal.reason as Error);
      signal.addEventListener("abort", stop, { once: true });
    });
    try {
      return await Promise.race([work, aborted]);
    } finally {
      signal.removeEventListener("abort", stop);
      work.catch(() => undefined);
    }
  }

  function read<R extends StripeResource>(resource: R, object: unknown): StripeRecords[R] {
    const record = stripeRecord(resource, object);
    if (record === null) throw new UnknownShape(resource, object);
    return record;
  }

  return {
    /** The moment of the last answer by Stripe's own clock, in seconds since 1970; null before there was one. */
    answeredAt: (): number | null => answeredAt,

    /** One page of a list, the newest first, as Stripe gives it. */
    async page<R extends StripeResource>(
      resource: R,
      { from, through, after }: PageQuery,
      limit = pageSize,
    ): Promise<Result<Page<R>, Failure>> {
      const query = {
        limit,
        created: { gte: from, lte: through },
        ...(after === null ? {} : { starting_after: after }),
      };
      return await ask(resource, async () => {
        const list = await listOf(stripe, resource, query);
        return { records: list.data.map((object) => read(resource, object)), has_more: list.has_more };
      });
    },

    /** A single object as it is now; null where Stripe has none of that id. */
    async object<R extends StripeResource>(
      resource: R,
      id: string,
    ): Promise<Result<StripeRecords[R] | null, Failure>> {
      return await ask(resource, async () => {
        try {
          return read(resource, await objectOf(stripe, resource, id));
        } catch (error) {
          if (error instanceof Stripe.errors.StripeError && error.statusCode === 404) return null;
          throw error;
        }
      });
    },

    /** Whose key it is. Where a key may not see the account, Stripe's refusal names its id. */
    async account(): Promise<Result<{ readonly account_id: string; readonly name: string | null }, Failure>> {
      const answer = await ask("account", () => stripe.accounts.retrieveCurrent());
      if (answer.ok) {
        const { id, settings, business_profile: profile } = answer.value;
        return ok({ account_id: id, name: settings?.dashboard?.display_name || profile?.name || null });
      }
      const told =
        answer.error.code === "missing_permission" ? /\bacct_\w+/.exec(answer.error.details ?? "") : null;
      return told ? ok({ account_id: told[0], name: null }) : answer;
    },
  };
}

type ListQuery = { limit: number; created: { gte: number; lte: number }; starting_after?: string };

/** A charge with its balance transaction, an invoice with its payments, in the same answer. */
async function listOf(
  stripe: Stripe,
  resource: StripeResource,
  query: ListQuery,
): Promise<{ readonly data: readonly unknown[]; readonly has_more: boolean }> {
  switch (resource) {
    case "balance_transactions":
      return await stripe.balanceTransactions.list(query);
    case "charges":
      return await stripe.charges.list({ ...query, expand: ["data.balance_transaction"] });
    case "refunds":
      return await stripe.refunds.list(query);
    case "disputes":
      return await stripe.disputes.list(query);
    case "checkout_sessions":
      return await stripe.checkout.sessions.list(query);
    case "invoices":
      return await stripe.invoices.list({ ...query, expand: ["data.payments"] });
  }
}

async function objectOf(stripe: Stripe, resource: StripeResource, id: string): Promise<unknown> {
  switch (resource) {
    case "balance_transactions":
      return await stripe.balanceTransactions.retrieve(id);
    case "charges":
      return await stripe.charges.retrieve(id, { expand: ["balance_transaction"] });
    case "refunds":
      return await stripe.refunds.retrieve(id);
    case "disputes":
      return await stripe.disputes.retrieve(id);
    case "checkout_sessions":
      return await stripe.checkout.sessions.retrieve(id);
    case "invoices":
      return await stripe.invoices.retrieve(id, { expand: ["payments"] });
  }
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** An object that is not as Stripe documents it: nothing is guessed about money. */
class UnknownShape extends Error {
  constructor(resource: StripeResource, object: unknown) {
    const id = (object as { id?: unknown } | null)?.id;
    super(`${resource}: ${typeof id === "string" ? id.slice(0, 60) : "an object without an id"}`);
  }
}

/** What the mode of a key is, before anything is sent. */
export function stripeKeyMode(key: string): Result<"live" | "test", Failure> {
  const refuse = (code: string, message: string, advice: string | null = howToGetAKey) =>
    fail<Failure>({ code, message, advice, details: null });
  if (key === "") return refuse("missing_key", "The key is missing.");
  if (/[^\x21-\x7e]/.test(key))
    return refuse("malformed_key", "The key has characters that no key has, or spaces inside.");
  if (key.startsWith("sk_"))
    return refuse("secret_key", "This is a secret key: it may move money, so it is not taken here.");
  if (key.startsWith("pk_"))
    return refuse("malformed_key", "This is a publishable key, which may not read payments.");
  if (key.startsWith("whsec_"))
    return refuse("malformed_key", "This is a webhook's signing secret, not a key.");
  const mode = /^rk_(live|test)_[A-Za-z0-9]+$/.exec(key)?.[1];
  if (mode !== "live" && mode !== "test") return refuse("malformed_key", "This is not a key of Stripe's.");
  if (key.length < 30) return refuse("truncated_key", "The key is cut short.");
  return ok(mode);
}

const howToGetAKey =
  "In Stripe's dashboard, under Developers, API keys, create a restricted key (rk_…) with the permissions listed here, each to Read.";

const cancelled: Failure = {
  code: "cancelled",
  message: "Reading from Stripe was cancelled.",
  advice: "What was read is kept; the next time it goes on from there.",
  details: null,
};

function failureOf(error: unknown, what: string, key: string): Failure {
  if (error instanceof UnknownShape)
    return {
      code: "unknown_shape",
      message: "Stripe answered an object in a form that is not known here, so nothing was reconciled.",
      advice: "Update this program; until then, use Stripe's exports.",
      details: error.message,
    };
  if (!(error instanceof Stripe.errors.StripeError)) throw error;
  const details = redact(
    [error.statusCode, error.rawType, error.code, error.message, error.requestId].filter(Boolean).join(" "),
    [key],
  ).replace(/\brk_\w*\*+\w*/g, "[key]"); // Stripe repeats its beginning and end
  const say = (code: string, message: string, advice: string): Failure => ({
    code,
    message,
    advice,
    details,
  });
  if (error instanceof Stripe.errors.StripeAuthenticationError)
    return error.code === "api_key_expired" || /expired/i.test(error.message)
      ? say("expired_key", "Stripe says that this key has expired.", howToGetAKey)
      : say(
          "wrong_key",
          "Stripe does not know this key.",
          "See that it was copied whole and was not revoked.",
        );
  if (error instanceof Stripe.errors.StripePermissionError) {
    const permission = what in stripePermissions ? stripePermissions[what as StripeResource] : null;
    const named = /'(rak_\w+)'/.exec(error.message)?.[1] ?? permission?.name ?? "a permission";
    return say(
      "missing_permission",
      `The key may not read ${what.replaceAll("_", " ")}.`,
      permission
        ? `In Stripe's dashboard, under Developers, API keys, edit the key and set "${permission.row}" to Read.`
        : `The key lacks ${named}.`,
    );
  }
  if (error instanceof Stripe.errors.StripeRateLimitError)
    return say(
      "rate_limited",
      "Stripe asks for fewer requests, again and again.",
      "Something else uses this account's limit. Start again later: it goes on from where it stopped.",
    );
  if (error instanceof Stripe.errors.StripeConnectionError)
    return /timed? ?out/i.test(error.message)
      ? say("timeout", "Stripe does not answer in time.", "Start again: it goes on from where it stopped.")
      : say(
          "offline",
          "Stripe cannot be reached.",
          "See that this machine may reach api.stripe.com, then start again: it goes on from where it stopped.",
        );
  return say(
    (error.statusCode ?? 0) >= 500 ? "unavailable" : "refused",
    (error.statusCode ?? 0) >= 500 ? "Stripe has a problem at present." : "Stripe refused the request.",
    "Start again later: it goes on from where it stopped. The details say what Stripe answered.",
  );
}
