import { useDebouncedValue } from "@mantine/hooks";
import { useCallback, useState } from "react";
import type { AccountFilter } from "../../../../shared/contract/users.ts";
import { useCall } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { isNumber, useRemembered } from "../../lib/remember.ts";
import { isSort, useCriteria } from "./user-criteria.ts";

export type UserSearch = ReturnType<typeof useUserSearch>;

/** What is searched for, remembered, and the page of users that was found. */
export function useUserSearch(isOpen: boolean) {
  const [{ filter, query, planId, sort, descending }, setCriteria] = useCriteria();
  const setQuery = (value: string): void => setCriteria({ query: value });
  const [limit, setLimit] = useRemembered("users.limit", 20, isNumber);
  const [isHeld, setHeld] = useState(false);

  const [settled, cancelSettle] = useDebouncedValue(query.trim(), 300);
  const [forced, setForced] = useState<string | null>(null);
  const searched = forced !== null && forced === query.trim() ? forced : settled;
  // Keyset paging: the cursors of the pages before this one, and the one of this page.
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const criteria = JSON.stringify([searched, filter, planId, sort, descending, limit]);
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
    },
    // Read again by itself only while nobody reads it: rows sorted by what is live would jump.
    { keepPrevious: true, ...(isHeld || isOpen ? {} : { refetchMs: 15_000 }) },
  );
  const next = found.data?.next_cursor ?? null;
  const goNext = useCallback(() => {
    if (next !== null) setCursors((before) => [...before, next]);
  }, [next]);
  const goBack = useCallback(() => setCursors((before) => before.slice(0, -1)), []);
  useKeys({ "]": goNext, "[": goBack, r: () => void found.refetch() });

  return {
    query,
    setQuery,
    /** Searches for what is typed without waiting for more. */
    searchNow: () => {
      cancelSettle();
      setForced(query.trim());
    },
    searched,
    filter,
    setFilter: (value: AccountFilter): void => setCriteria({ filter: value }),
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
    isNarrowed: searched !== "" || filter !== "all" || planId !== "",
    clear: (): void => setCriteria({ query: "", filter: "all", planId: "" }),
    found,
    pagesBefore: cursors.length,
    next,
    goNext,
    goBack,
  };
}
