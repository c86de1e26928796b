/**
 * Stripe's API as a source: reads an account into its cache, each time only what is new. A balance transaction never
 * changes, and every movement of money makes one. So three things are read again, and no more: what Stripe had not
 * finished with (a pending charge, an open dispute or checkout, an unpaid invoice), what a new balance transaction
 * refers to (a refund that failed, a dispute that was won), and the charge behind each new refund or dispute. Metadata
 * edited afterwards in Stripe is not noticed; for that the cache is forgotten.
 */
import { join } from "node:path";
import type { Failure } from "../../../../shared/contract/index.ts";
import {
  STRIPE_RESOURCES,
  type StripeRecords,
  type StripeResource,
} from "../../../../shared/governance/reconciliation/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Span, StripeCache } from "./stripe-source-cache.ts";
import {
  createStripeClient,
  type StripeClientOptions,
  stripeApiVersion,
  stripeKeyMode,
  stripePermissions,
} from "./stripe-source-client.ts";

const day = 86_400;
/** The ledger answers what came up to three days late; Stripe is read as far before the period. */
export const lookBackSeconds = 3 * day;
/** Further back: what may be older than the payment that it explains. */
const furtherBack: Partial<Record<StripeResource, number>> = {
  checkout_sessions: 2 * day,
  invoices: 35 * day,
};
/** Lists may show the very newest a little late: so much is read again each time. */
const overlapSeconds = 300;
/** What Stripe has not finished with after so long is left as it is. */
const watchSeconds = 200 * day;
/** Single objects asked for at once. */
const atOnce = 5;

/** What is known of a key: whose it is, and what it may not read. */
interface StripeKeyCheck {
  readonly account_id: string;
  readonly account_name: string | null;
  readonly mode: "live" | "test";
  readonly permissions: readonly {
    readonly row: string;
    readonly name: string;
    readonly is_granted: boolean;
  }[];
}

export interface StripeProgress {
  readonly resource: StripeResource;
  /** Objects read in this run. */
  readonly objects: number;
  readonly requests: number;
  /** 0–1, by the time that the lists have gone through. */
  readonly fraction: number;
}

export interface StripeReading {
  /** Until when all is known; in seconds since 1970. */
  readonly through: number;
  readonly objects: number;
  readonly requests: number;
  readonly api_version: string;
}

/** A cache a project and account, live and test apart. */
export function stripeCachePath(
  dataDir: string,
  projectId: string,
  { account_id: account, mode }: Pick<StripeKeyCheck, "account_id" | "mode">,
): string {
  return join(dataDir, "stripe", projectId, `${account}-${mode}.sqlite`);
}

/** Asks for one object of each kind. A key that lacks a permission is no failure: the answer says which to tick. */
export async function checkStripeKey(options: StripeClientOptions): Promise<Result<StripeKeyCheck, Failure>> {
  const mode = stripeKeyMode(options.key);
  if (!mode.ok) return mode;
  const client = createStripeClient(options);
  const account = await client.account();
  if (!account.ok) return account;
  const permissions: StripeKeyCheck["permissions"][number][] = [];
  for (const resource of STRIPE_RESOURCES) {
    const permission = stripePermissions[resource];
    if (permissions.some(({ name }) => name === permission.name)) continue;
    const page = await client.page(resource, { from: 0, through: 4_000_000_000, after: null }, 1);
    if (!page.ok && page.error.code !== "missing_permission") return page;
    permissions.push({ ...permission, is_granted: page.ok });
  }
  const { account_id, name } = account.value;
  return ok({ account_id, account_name: name, mode: mode.value, permissions });
}

interface ReadStripeOptions extends StripeClientOptions {
  readonly cache: StripeCache;
  /** Whose account the cache is of. */
  readonly account_id: string;
  /** From when on, in seconds since 1970. */
  readonly from: number;
  readonly now: () => Date;
  readonly onProgress?: (progress: StripeProgress) => void;
}

/** Brings the cache up to this moment. May be stopped and started again at any time. */
export async function readStripe(options: ReadStripeOptions): Promise<Result<StripeReading, Failure>> {
  const { cache, from, now, onProgress } = options;
  let requests = 0;
  let objects = 0;
  let fraction = 0;
  const client = createStripeClient({
    ...options,
    onRequest() {
      requests++;
      options.onRequest?.();
    },
  });
  const startedAt = now().getTime();
  const tell = (resource: StripeResource, read: number): void => {
    objects += read;
    onProgress?.({ resource, objects, requests, fraction: Math.min(1, fraction) });
  };
  const share = 0.95 / STRIPE_RESOURCES.length;

  /** One stretch of a list, page by page, from where it was left. */
  async function readSpan(
    resource: StripeResource,
    span: Span,
    after: string | null,
  ): Promise<Failure | null> {
    const begun = fraction;
    for (let cursor = after; ; ) {
      const page = await client.page(resource, { ...span, after: cursor });
      if (!page.ok) {
        // The object that the reading goes on from may be gone: a draft of an invoice can be deleted.
        if (page.error.code !== "refused" || cursor === null) return page.error;
        cursor = null;
        continue;
      }
      const { records, has_more: hasMore } = page.value;
      const last = records.at(-1);
      const isDone = !hasMore || last === undefined;
      cursor = last?.id ?? null;
      const { covered } = cache.reading(resource);
      cache.keep(resource, records, now().getTime(), {
        covered: isDone ? union(covered, span) : covered,
        open: isDone ? null : { ...span, after: cursor },
      });
      const done = last ? (span.through - last.created) / Math.max(1, span.through - span.from) : 1;
      fraction = begun + share * (isDone ? 1 : done);
      tell(resource, records.length);
      if (isDone) return null;
    }
  }

  async function readResource(resource: StripeResource): Promise<Failure | null> {
    const wanted = from - (furtherBack[resource] ?? 0);
    const { open } = cache.reading(resource);
    if (open) {
      const failure = await readSpan(resource, open, open.after);
      if (failure) return failure;
    }
    for (const span of missing(cache.reading(resource).covered, { from: wanted, through })) {
      const failure = await readSpan(resource, span, null);
      if (failure) return failure;
    }
    return null;
  }

  /** Reads single objects as they are now, a few at a time: these, and what Stripe had not finished with. */
  async function readAgain<R extends StripeResource>(
    resource: R,
    ids: readonly string[],
  ): Promise<Failure | null> {
    const waiting = [...new Set([...cache.unfinished(resource, through - watchSeconds, startedAt), ...ids])];
    for (let at = 0; at < waiting.length; at += atOnce) {
      const answers = await Promise.all(
        waiting.slice(at, at + atOnce).map((id) => client.object(resource, id)),
      );
      const records: StripeRecords[R][] = [];
      for (const answer of answers) {
        if (!answer.ok) return answer.error;
        if (answer.value) records.push(answer.value);
      }
      cache.keep(resource, records, now().getTime());
      tell(resource, records.length);
    }
    return null;
  }

  async function readChanged(): Promise<Failure | null> {
    const moved = (resource: StripeResource, ...idForms: string[]): string[] =>
      cache.spokenOf(resource, ["balance_transactions"], idForms);
    return (
      (await readAgain("refunds", moved("refunds", "re_*", "pyr_*"))) ??
      (await readAgain("disputes", moved("disputes", "dp_*", "du_*"))) ??
      (await readAgain(
        "charges",
        cache.spokenOf("charges", ["balance_transactions", "refunds", "disputes"], ["ch_*", "py_*"]),
      )) ??
      (await readAgain("checkout_sessions", [])) ??
      (await readAgain("invoices", []))
    );
  }

  const account = await client.account();
  if (!account.ok) return account;
  if (account.value.account_id !== options.account_id) return fail(otherAccount);
  // By Stripe's clock: on a machine whose own is ahead, what is yet to come would count as read.
  const through = Math.min(Math.floor(startedAt / 1000), client.answeredAt() ?? Number.POSITIVE_INFINITY);
  for (const [index, resource] of STRIPE_RESOURCES.entries()) {
    fraction = share * index;
    const failure = await readResource(resource);
    if (failure) return fail(failure);
  }
  fraction = 0.95;
  const failure = await readChanged();
  if (failure) return fail(failure);
  cache.setFollowed(now().getTime());
  return ok({ through, objects, requests, api_version: stripeApiVersion });
}

/** What is missing of a stretch, given what is there. */
function missing(covered: Span | null, wanted: Span): Span[] {
  if (covered === null) return [wanted];
  const spans: Span[] = [];
  if (wanted.from < covered.from) spans.push({ from: wanted.from, through: covered.from });
  if (wanted.through > covered.through)
    spans.push({ from: Math.max(covered.from, covered.through - overlapSeconds), through: wanted.through });
  return spans;
}

/** Stretches that meet, as one: they always do, because what is missing begins where the rest ends. */
const union = (a: Span | null, b: Span): Span =>
  a === null ? b : { from: Math.min(a.from, b.from), through: Math.max(a.through, b.through) };

const otherAccount: Failure = {
  code: "other_account",
  message: "The key is of another Stripe account than the one that was connected.",
  advice:
    "Connect Stripe again with this key if that is meant: what was read of the former account stays apart.",
  details: null,
};
