/** The users desk: find and look. */
import { z } from "zod";
import {
  type AccountRow,
  type AccountState,
  accountAt,
  accountDetail,
  accountPage,
  accountUsage,
  decisionRow,
} from "../../../../shared/contract/index.ts";
import { fail, ok } from "../../../../shared/governance/result.ts";
import { notConnected } from "../connection/link.ts";
import { type DeskContext, mayBeOld, readThrough, withWaiting } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

type UserHandlers = Pick<Handlers, "users.search" | "users.get" | "users.usage" | "users.decisions">;

type Search = Parameters<Handlers["users.search"]>[0];

export function userHandlers(desk: DeskContext): UserHandlers {
  const { connection, store, now } = desk;

  return {
    "users.search": async (input) => {
      const profileId = connection.profileId();
      if (profileId === null) return fail(notConnected);
      const page = await connection.rpc(
        "console_search_accounts",
        {
          p_query: input.query,
          p_filter: input.filter,
          p_plan_id: input.plan_id,
          p_sort: input.sort,
          p_descending: input.descending,
          p_cursor: input.cursor,
          p_limit: input.limit,
          ...(input.active_since === null ? {} : { p_active_since: input.active_since }),
        },
        accountPage,
        { retries: 1 },
      );
      if (page.ok) {
        store.putAccountsSeen(profileId, page.value.accounts, now().toISOString());
        return ok({ ...page.value, as_of: null });
      }
      if (!mayBeOld(page.error, connection)) return page;
      const done = withWaiting(desk, "user");
      const seen = store
        .listAccountsSeen(profileId)
        .map(({ account, at }) => ({ account: done(account.user_id, account), at }));
      return seen.length === 0 ? page : ok(searchSeen(seen, input, now()));
    },

    "users.get": async ({ user_id: userId }) => {
      const answer = await readThrough(
        desk,
        `account:${userId}`,
        "console_get_account",
        { p_user_id: userId },
        accountDetail,
      );
      if (!answer.ok) return answer;
      const { value, as_of: asOf } = answer.value;
      const account = asOf === null ? value.account : withWaiting(desk, "user")(userId, value.account);
      return ok({ ...value, account: accountAt(account, now()), as_of: asOf });
    },

    "users.usage": async ({ user_id: userId, from, to }) => {
      const zone = seenAccount(desk, userId)?.timezone ?? "UTC";
      const answer = await readThrough(
        desk,
        `usage:${userId}:${from}:${to}`,
        "calculate_user_token_usage",
        // The database reads a day's start in the account's own zone, changes of the clock included.
        { p_user_id: userId, p_start: `${from} 00:00:00 ${zone}`, p_end: `${dayAfter(to)} 00:00:00 ${zone}` },
        accountUsage,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },

    "users.decisions": async ({ user_id: userId, before_id: beforeId, limit }) => {
      const answer = await readThrough(
        desk,
        `decisions:${userId}:${beforeId}:${limit}`,
        "console_account_decisions",
        { p_user_id: userId, p_before_id: beforeId, p_limit: limit },
        z.looseObject({ decisions: z.array(decisionRow), next_before_id: z.number().int().nullable() }),
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },
  };
}

/** The account as it was last seen here. */
export function seenAccount({ connection, store }: DeskContext, userId: string): AccountState | null {
  const profileId = connection.profileId();
  if (profileId === null) return null;
  const detail = accountDetail.safeParse(store.getSnapshot(profileId, `account:${userId}`)?.value);
  if (detail.success) return detail.data.account;
  return store.getAccountSeen(profileId, userId);
}

/** The search of console_search_accounts over what was seen: enough to find a person while offline. */
function searchSeen(
  seen: readonly { account: AccountRow; at: string }[],
  { query, filter, plan_id: planId, sort, descending, limit, active_since: since }: Search,
  now: Date,
) {
  const words = query.trim().toLowerCase().split(/\s+/);
  const current = seen.map(({ account, at }) => ({ account: accountAt(account, now), at }));
  const found = current.filter(({ account }) => {
    const haystack =
      `${account.user_id}\n${account.display_name ?? ""}\n${account.email ?? ""}`.toLowerCase();
    return (
      words.every((word) => haystack.includes(word)) &&
      (planId === null || account.plan_id === planId) &&
      (since === null || (account.last_activity !== null && account.last_activity >= since)) &&
      fits(filter, account)
    );
  });
  const sign = descending ? -1 : 1;
  found.sort(
    (a, b) =>
      sign * compare(a.account, b.account, sort) || a.account.user_id.localeCompare(b.account.user_id),
  );
  const page = found.slice(0, limit);
  return {
    accounts: page.map(({ account }) => account),
    next_cursor: null,
    total: found.length,
    total_is_exact: false,
    as_of: page.reduce<string | null>(
      (oldest, { at }) => (oldest === null || at < oldest ? at : oldest),
      null,
    ),
  };
}

function fits(filter: Search["filter"], account: AccountRow): boolean {
  if (filter === "flagged") return account.is_flagged;
  if (filter === "blocked") return account.is_blocked;
  if (filter === "near_limit") return (account.usage_percent ?? 0) >= 80;
  if (filter === "in_debt") return account.debt > 0;
  // What is kept of an account says neither what counts as low nor what is disputed.
  if (filter === "low_balance") return account.available <= 0;
  if (filter === "disputed") return false;
  if (filter === "active_today") return account.tokens_today > 0;
  return true;
}

function compare(a: AccountRow, b: AccountRow, sort: Search["sort"]): number {
  if (sort === "name") return (a.display_name ?? a.user_id).localeCompare(b.display_name ?? b.user_id);
  if (sort === "last_activity") return (a.last_activity ?? "").localeCompare(b.last_activity ?? "");
  if (sort === "created_at") return Date.parse(a.created_at) - Date.parse(b.created_at);
  if (sort === "usage_percent") return (a.usage_percent ?? -1) - (b.usage_percent ?? -1);
  return a[sort] - b[sort];
}

function dayAfter(day: string): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
}
