/**
 * A server on this machine that answers as Stripe's API documents it (docs.stripe.com/api: pagination, errors, expanding
 * objects): lists of at most 100, the newest first, `starting_after`, `has_more`, `created` ranges; 401, 403 and 429 with
 * Stripe's error bodies. What it holds is given; what goes wrong is decided by the test, request by request.
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

export interface StripeKey {
  readonly account: StripeAccount;
  readonly lacks?: readonly string[];
  readonly isExpired?: boolean;
}

export interface StripeRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly version: string;
}

/** What a test makes of a request instead of the answer. */
export type Fault =
  | "hang"
  | "drop"
  | { readonly status: number; readonly body: object; readonly headers?: object };

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

export async function startStripeServer(keys: Readonly<Record<string, StripeKey>>) {
  const requests: StripeRequest[] = [];
  let decide: (request: StripeRequest, number: number) => Fault | null = () => null;
  let clock: () => number = Date.now;

  function answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://stripe.test");
    const asked: StripeRequest = {
      method: request.method ?? "",
      path: url.pathname.replace(/^\/v1\//, ""),
      query: url.searchParams,
      version: String(request.headers["stripe-version"]),
    };
    requests.push(asked);
    const send = (status: number, body: object, headers: object = {}): void => {
      response.writeHead(status, {
        "content-type": "application/json",
        "request-id": `req_${requests.length}`,
        date: new Date(clock()).toUTCString(),
        ...headers,
      });
      response.end(JSON.stringify(body));
    };
    const refuse = (status: number, message: string, more: object = {}): void =>
      send(status, { error: { message, type: "invalid_request_error", ...more } });
    const fault = decide(asked, requests.length);
    if (fault === "hang") return;
    if (fault === "drop") return void request.socket.destroy();
    if (fault) return send(fault.status, fault.body, fault.headers);

    const text = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1] ?? "";
    const shown = `${text.slice(0, 8)}${"*".repeat(12)}${text.slice(-4)}`;
    const key = Object.hasOwn(keys, text) ? keys[text] : undefined;
    if (!key) return refuse(401, `Invalid API Key provided: ${shown}`);
    if (key.isExpired) return refuse(401, `Expired API Key provided: ${shown}`, { code: "api_key_expired" });
    if (asked.method !== "GET") return refuse(403, "This key may only read.");
    const { account } = key;
    const needs = (permission: string): boolean => {
      if (!key.lacks?.includes(permission)) return true;
      refuse(
        403,
        `The provided key '${shown}' does not have the required permissions for this endpoint on account '${account.id}'. Having the '${permission}' permission would allow this request to continue.`,
      );
      return false;
    };
    if (asked.path === "account")
      return needs("rak_accounts_kyc_basic_read")
        ? send(200, {
            id: account.id,
            object: "account",
            business_profile: { name: account.name },
            settings: { dashboard: { display_name: account.name, timezone: "Etc/UTC" } },
          })
        : undefined;
    const path = listPaths.find((one) => asked.path === one || asked.path.startsWith(`${one}/`));
    if (!path) return refuse(404, `Unrecognized request URL (GET: /v1/${asked.path}).`);
    if (!needs(permissionOf[path])) return;
    const expand = [...asked.query].filter(([name]) => name.startsWith("expand")).map(([, value]) => value);
    const list = account.lists[path];
    const show = (object: StripeObject, prefix: string): object =>
      shownAs(path, object, account, (field) => expand.includes(`${prefix}${field}`));
    const ofInvoice = /^invoices\/([^/]+)\/lines$/.exec(asked.path)?.[1];
    if (ofInvoice !== undefined) {
      const invoice = list.find((one) => one.id === ofInvoice) as
        | { lines?: { data: StripeObject[] } }
        | undefined;
      if (!invoice) return refuse(404, `No such invoice: '${ofInvoice}'`, { code: "resource_missing" });
      const lines = invoice.lines?.data ?? [];
      const first = lines.findIndex(({ id }) => id === asked.query.get("starting_after")) + 1;
      const size = Number(asked.query.get("limit") ?? 10);
      return send(200, {
        object: "list",
        url: `/v1/${asked.path}`,
        has_more: lines.length > first + size,
        data: lines.slice(first, first + size),
      });
    }
    if (asked.path !== path) {
      const id = asked.path.slice(path.length + 1);
      const found = list.find((one) => one.id === id);
      return found
        ? send(200, show(found, ""))
        : refuse(404, `No such object: '${id}'`, { code: "resource_missing", param: "id" });
    }
    const limit = Number(asked.query.get("limit") ?? 10);
    if (!Number.isInteger(limit) || limit < 1 || limit > 100)
      return refuse(400, "Invalid integer: limit must be from 1 to 100.", { param: "limit" });
    const bound = (name: string, otherwise: number): number =>
      Number(asked.query.get(`created[${name}]`) ?? otherwise);
    const matching = list
      .filter((one) => one.created >= bound("gte", 0) && one.created <= bound("lte", 1e12))
      .sort((a, b) => b.created - a.created || (a.id < b.id ? 1 : -1));
    const after = asked.query.get("starting_after");
    const start = after === null ? 0 : matching.findIndex(({ id }) => id === after) + 1;
    if (after !== null && start === 0)
      return refuse(400, `No such object: '${after}'`, { code: "resource_missing", param: "starting_after" });
    send(200, {
      object: "list",
      url: `/v1/${path}`,
      has_more: matching.length > start + limit,
      data: matching.slice(start, start + limit).map((one) => show(one, "data.")),
    });
  }

  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    endpoint: { host: "127.0.0.1", port, protocol: "http" } as const,
    requests,
    /** Decides what goes wrong; requests are numbered from 1. */
    onRequest(next: typeof decide): void {
      decide = next;
    },
    /** Stripe's own clock, in milliseconds. */
    setClock(next: typeof clock): void {
      clock = next;
    },
    async stop(): Promise<void> {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
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
