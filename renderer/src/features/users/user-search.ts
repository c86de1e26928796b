import { useDebouncedValue } from "@mantine/hooks";
import { useCallback, useEffect, useState } from "react";
import {
  type AccountFilter,
  accountFilter,
  type AccountSort,
  accountSort,
} from "../../../../shared/contract/users.ts";
import { useCall } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { isNumber, isOneOf, isText, useRemembered } from "../../lib/remember.ts";
import { navigate, usePlace } from "../../lib/router.ts";

export const isFilter = isOneOf(...accountFilter.options);
const isSort = isOneOf(...accountSort.options);

export type UserSearch = ReturnType<typeof useUserSearch>;

/** What is searched for, remembered, and the page of users that was found. */
export function useUserSearch(isOpen: boolean) {
  const wantedFilter = usePlace().query.get("filter");
  const [filter, setFilter] = useRemembered<AccountFilter>("users.filter", "all", isFilter);
  const [query, setQuery] = useRemembered("users.query", "", isText);
  const [planId, setPlanId] = useRemembered("users.plan", "", isText);
  const [sort, setSort] = useRemembered<AccountSort>("users.sort", "last_activity", isSort);
  const [descending, setDescending] = useRemembered(
    "users.descending",
    true,
    (value) => typeof value === "boolean",
  );
  const [limit, setLimit] = useRemembered("users.limit", 20, isNumber);
  const [isHeld, setHeld] = useState(false);

  // A link may name the filter ("Show flagged users"); from then on it is the person's own choice.
  useEffect(() => {
    if (!isFilter(wantedFilter)) return;
    setFilter(wantedFilter);
    setQuery("");
    setPlanId("");
    navigate("/users", { replace: true });
  }, [wantedFilter, setFilter, setQuery, setPlanId]);

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
    setFilter,
    planId,
    setPlanId,
    sort,
    descending,
    setOrder: (key: string, down: boolean) => {
      if (!isSort(key)) return;
      setSort(key);
      setDescending(key === sort ? down : key !== "name");
    },
    limit,
    setLimit,
    setHeld,
    isNarrowed: searched !== "" || filter !== "all" || planId !== "",
    clear: () => {
      setQuery("");
      setFilter("all");
      setPlanId("");
    },
    found,
    pagesBefore: cursors.length,
    next,
    goNext,
    goBack,
  };
}
