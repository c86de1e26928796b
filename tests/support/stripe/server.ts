/**
 * A server on this machine that answers as Stripe's API documents it (docs.stripe.com/api: pagination, errors, expanding
 * objects): lists of at most 100, the newest first, `starting_after`, `has_more`, `created` ranges; 401, 403 and 429 with
 * Stripe's error bodies. The test gives what it holds, and decides request by request what goes wrong.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type StripeObject = Readonly<Record<string, unknown>> & {
  readonly id: string;
  readonly created: number;
};

/** What an account holds, by the path of its list. */
export interface StripeAccount {
  readonly id: string;
  readonly name: string;
  readonly lists: Record<(typeof listPaths)[number], StripeObject[]>;
}

const listPaths = [
  "balance_transactions",
  "charges",
  "refunds",
  "disputes",
  "checkout/sessions",
  "invoices",
] as const;
type ListPath = (typeof listPaths)[number];

const permissionOf: Readonly<Record<ListPath, string>> = {
  balance_transactions: "rak_balance_transaction_source_read",
  charges: "rak_charge_read",
  refunds: "rak_charge_read",
  disputes: "rak_dispute_read",
  "checkout/sessions": "rak_checkout_session_read",
  invoices: "rak_invoice_read",
};

interface StripeKey {
  readonly account: StripeAccount;
  readonly lacks?: readonly string[];
  readonly isExpired?: boolean;
}

interface StripeRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly version: string;
}

/** What a test makes of a request instead of the answer. */
type Fault = "hang" | "drop" | { readonly status: number; readonly body: object; readonly headers?: object };

export const rateLimited: Fault = {
  status: 429,
  headers: { "retry-after": "0", "stripe-rate-limited-reason": "global-rate" },
  body: {
    error: {
      message:
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
      type: "invalid_request_error",
      code: "rate_limit",
      doc_url: "https://stripe.com/docs/error-codes/rate-limit",
    },
  },
};
export const brokenInside: Fault = {
  status: 500,
  body: { error: { message: "An unknown error occurred", type: "api_error" } },
};

export const emptyAccount = (id: string, name: string): StripeAccount => ({
  id,
  name,
  lists: {
    balance_transactions: [],
    charges: [],
    refunds: [],
    disputes: [],
    "checkout/sessions": [],
    invoices: [],
  },
});

interface ServerState {
  readonly keys: Readonly<Record<string, StripeKey>>;
  readonly requests: StripeRequest[];
  decide: (request: StripeRequest, number: number) => Fault | null;
  /** Stripe's own clock, in milliseconds. */
  clock: () => number;
}

export async function startStripeServer(keys: Readonly<Record<string, StripeKey>>) {
  const state: ServerState = { keys, requests: [], decide: () => null, clock: Date.now };
  const server = createServer((request, response) => handle(state, request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: { host: "127.0.0.1", port, protocol: "http" } as const,
    requests: state.requests,
    /** Decides what goes wrong; requests are numbered from 1. */
    onRequest(next: ServerState["decide"]): void {
      state.decide = next;
    },
    /** Sets Stripe's own clock, in milliseconds. */
    setClock(next: ServerState["clock"]): void {
      state.clock = next;
    },
    async stop(): Promise<void> {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface Answer {
  readonly status: number;
  readonly body: object;
  readonly headers?: object;
}

const found = (body: object): Answer => ({ status: 200, body });
const refused = (status: number, message: string, more: object = {}): Answer => ({
  status,
  body: { error: { message, type: "invalid_request_error", ...more } },
});

function handle(state: ServerState, request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? "/", "http://stripe.test");
  const asked: StripeRequest = {
    method: request.method ?? "",
    path: url.pathname.replace(/^\/v1\//, ""),
    query: url.searchParams,
    version: String(request.headers["stripe-version"]),
  };
  const number = state.requests.push(asked);
  const fault = state.decide(asked, number);
  if (fault === "hang") return;
  if (fault === "drop") return void request.socket.destroy();
  const { status, body, headers } = fault ?? answer(state, asked, request.headers.authorization ?? "");
  response.writeHead(status, {
    "content-type": "application/json",
    "request-id": `req_${number}`,
    date: new Date(state.clock()).toUTCString(),
    ...headers,
  });
  response.end(JSON.stringify(body));
}

function answer({ keys }: ServerState, asked: StripeRequest, authorization: string): Answer {
  const secret = /^Bearer (\S+)$/.exec(authorization)?.[1] ?? "";
  const shown = `${secret.slice(0, 8)}${"*".repeat(12)}${secret.slice(-4)}`;
  const key = Object.hasOwn(keys, secret) ? keys[secret] : undefined;
  if (!key) return refused(401, `Invalid API Key provided: ${shown}`);
  if (key.isExpired) return refused(401, `Expired API Key provided: ${shown}`, { code: "api_key_expired" });
  if (asked.method !== "GET") return refused(403, "This key may only read.");
  const path = listPaths.find((one) => asked.path === one || asked.path.startsWith(`${one}/`));
  if (!path && asked.path !== "account")
    return refused(404, `Unrecognized request URL (GET: /v1/${asked.path}).`);
  const permission = path ? permissionOf[path] : "rak_accounts_kyc_basic_read";
  if (key.lacks?.includes(permission)) return lacksPermission(shown, key.account, permission);
  return path ? answerResource(key.account, path, asked) : found(accountObject(key.account));
}

function lacksPermission(shown: string, account: StripeAccount, permission: string): Answer {
  return refused(
    403,
    `The provided key '${shown}' does not have the required permissions for this endpoint on account '${account.id}'. Having the '${permission}' permission would allow this request to continue.`,
  );
}

function accountObject({ id, name }: StripeAccount): object {
  return {
    id,
    object: "account",
    business_profile: { name },
    settings: { dashboard: { display_name: name, timezone: "Etc/UTC" } },
  };
}

function answerResource(account: StripeAccount, path: ListPath, asked: StripeRequest): Answer {
  const invoiceId = /^invoices\/([^/]+)\/lines$/.exec(asked.path)?.[1];
  if (invoiceId !== undefined) return invoiceLines(account, invoiceId, asked);
  if (asked.path === path) return listPage(account, path, asked);
  const id = asked.path.slice(path.length + 1);
  const object = account.lists[path].find((one) => one.id === id);
  return object
    ? found(shownAs(path, object, account, isExpandedBy(asked, "")))
    : refused(404, `No such object: '${id}'`, { code: "resource_missing", param: "id" });
}

/** Which fields the request expands; in a list they begin with `data.`. */
function isExpandedBy({ query }: StripeRequest, prefix: "" | "data."): (field: string) => boolean {
  const expand = [...query].filter(([name]) => name.startsWith("expand")).map(([, value]) => value);
  return (field) => expand.includes(`${prefix}${field}`);
}

function invoiceLines(account: StripeAccount, id: string, { path, query }: StripeRequest): Answer {
  const invoice = account.lists.invoices.find((one) => one.id === id) as
    | { lines?: { data: StripeObject[] } }
    | undefined;
  if (!invoice) return refused(404, `No such invoice: '${id}'`, { code: "resource_missing" });
  const lines = invoice.lines?.data ?? [];
  const first = lines.findIndex((line) => line.id === query.get("starting_after")) + 1;
  const size = Number(query.get("limit") ?? 10);
  return found({
    object: "list",
    url: `/v1/${path}`,
    has_more: lines.length > first + size,
    data: lines.slice(first, first + size),
  });
}

function listPage(account: StripeAccount, path: ListPath, asked: StripeRequest): Answer {
  const { query } = asked;
  const limit = Number(query.get("limit") ?? 10);
  if (!Number.isInteger(limit) || limit < 1 || limit > 100)
    return refused(400, "Invalid integer: limit must be from 1 to 100.", { param: "limit" });
  const bound = (name: string, otherwise: number): number =>
    Number(query.get(`created[${name}]`) ?? otherwise);
  const matching = account.lists[path]
    .filter((one) => one.created >= bound("gte", 0) && one.created <= bound("lte", 1e12))
    .sort((a, b) => b.created - a.created || (a.id < b.id ? 1 : -1));
  const after = query.get("starting_after");
  const start = after === null ? 0 : matching.findIndex(({ id }) => id === after) + 1;
  if (after !== null && start === 0)
    return refused(400, `No such object: '${after}'`, { code: "resource_missing", param: "starting_after" });
  const isExpanded = isExpandedBy(asked, "data.");
  return found({
    object: "list",
    url: `/v1/${path}`,
    has_more: matching.length > start + limit,
    data: matching.slice(start, start + limit).map((one) => shownAs(path, one, account, isExpanded)),
  });
}

/** References are ids unless they were asked to be expanded; an invoice's payments come only then. */
function shownAs(
  path: ListPath,
  object: StripeObject,
  account: StripeAccount,
  isExpanded: (field: string) => boolean,
): object {
  if (path === "charges" && isExpanded("balance_transaction"))
    return {
      ...object,
      balance_transaction:
        account.lists.balance_transactions.find(({ id }) => id === object["balance_transaction"]) ?? null,
    };
  if (path === "invoices" && !isExpanded("payments")) {
    const { payments: _left, ...rest } = object;
    return rest;
  }
  return object;
}
