import { useState } from "react";
import type { AccountFilter } from "../../../../shared/contract/users.ts";
import { useAnswered, useCall } from "../../lib/console.tsx";
import { useNow } from "../../lib/clock.ts";
import { dayMs } from "../../lib/format.ts";
import { useKeys } from "../../lib/keys.ts";
import { isNumber, useRemembered } from "../../lib/remember.ts";
import { type SettledText, useSettledText } from "../../lib/settled.ts";
import { isSort, useCriteria } from "./user-criteria.ts";

export type UserSearch = ReturnType<typeof useUserSearch>;

/** What is searched for, remembered, and the page of users that was found. */
export function useUserSearch(isOpen: boolean) {
  const [chosen, setCriteria] = useCriteria();
  const { filter, query, planId, days, sort, descending } = chosen;
  const text: SettledText = useSettledText(query, (value) => setCriteria({ query: value.trim() }));
  const [limit, setLimit] = useRemembered("users.limit", 20, isNumber);
  const [isHeld, setHeld] = useState(false);
  const searched = query.trim();
  // To the hour, so that the same question stays the same.
  const hour = Math.floor(useNow(60_000) / 3_600_000) * 3_600_000;
  const since = days === 0 ? null : new Date(hour - days * dayMs).toISOString();

  // Keyset paging: the cursors of the pages before this one, and the one of this page.
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const criteria = JSON.stringify([searched, filter, planId, days, sort, descending, limit]);
  const [pagedFor, setPagedFor] = useState(criteria);
  if (pagedFor !== criteria) {
    setPagedFor(criteria);
    setCursors([]);
  }
  const found = useCall(
    "users.search",
    {
      query: searched,
      filter,
      plan_id: planId || null,
      sort,
      descending,
      cursor: (pagedFor === criteria ? cursors.at(-1) : null) ?? null,
      limit: Math.min(100, Math.max(1, limit)),
      active_since: since,
    },
    // Read again by itself only while nobody reads it: rows sorted by what is live would jump.
    { keepPrevious: true, ...(isHeld || isOpen ? {} : { refetchMs: 15_000 }) },
  );
  const answered = useAnswered(found, { searched, filter });
  const next = found.data?.next_cursor ?? null;
  const goNext = (): void => {
    if (next !== null) setCursors((before) => [...before, next]);
  };
  const goBack = (): void => setCursors((before) => before.slice(0, -1));
  useKeys({ "]": goNext, "[": goBack, r: () => void found.refetch() });

  return {
    /** The same as long as the same is asked for. */
    key: `${criteria} ${cursors.at(-1) ?? ""}`,
    text,
    chosen,
    setCriteria,
    searched,
    filter,
    /** Of what is listed: while a new search runs, that of the search before. */
    answered,
    setFilter: (value: AccountFilter): void => setCriteria({ filter: value }),
    days,
    /** The moment that `days` go back to; null for everybody. */
    since,
    setDays: (value: number): void => setCriteria({ days: value }),
    planId,
    setPlanId: (value: string): void => setCriteria({ planId: value }),
    sort,
    descending,
    setOrder: (key: string, down: boolean) => {
      if (!isSort(key)) return;
      setCriteria({ sort: key, descending: key === sort ? down : key !== "name" });
    },
    limit,
    setLimit,
    setHeld,
    isNarrowed: searched !== "" || filter !== "all" || planId !== "" || days !== 0,
    clear: (): void => setCriteria({ query: "", filter: "all", planId: "", days: 0 }),
    found,
    pagesBefore: cursors.length,
    next,
    goNext,
    goBack,
  };
}
