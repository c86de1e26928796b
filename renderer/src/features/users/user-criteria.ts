/** What the users desk searches for: in the address, and remembered. */
import { useEffect } from "react";
import {
  type AccountFilter,
  accountFilter,
  type AccountSort,
  accountSort,
} from "../../../../shared/contract/users.ts";
import { isNumber, isOneOf, isText, useRemembered } from "../../lib/remember.ts";
import { changeQuery, usePlace } from "../../lib/router.ts";

export const isFilter = isOneOf(...accountFilter.options);
export const isSort = isOneOf(...accountSort.options);

export interface Criteria {
  readonly filter: AccountFilter;
  readonly query: string;
  readonly planId: string;
  /** Only users who were active in the last so many days; 0: everybody. */
  readonly days: number;
  readonly sort: AccountSort;
  readonly descending: boolean;
}
const everybody: Criteria = {
  filter: "all",
  query: "",
  planId: "",
  days: 0,
  sort: "last_activity",
  descending: true,
};
export const isCriteria = (value: unknown): value is Criteria => {
  const of = value as Criteria | null;
  return (
    isFilter(of?.filter) &&
    isText(of.query) &&
    isText(of.planId) &&
    isNumber(of.days) &&
    isSort(of.sort) &&
    typeof of.descending === "boolean"
  );
};

/** All that differs from the defaults is in the address, so that a link shows the same list. */
export function criteriaQuery(of: Criteria): Record<string, string> {
  return {
    filter: of.filter === "all" ? "" : of.filter,
    q: of.query,
    plan: of.planId,
    active: of.days === 0 ? "" : String(of.days),
    sort:
      of.sort === everybody.sort && of.descending === everybody.descending
        ? ""
        : `${of.descending ? "-" : ""}${of.sort}`,
  };
}

/** The criteria that an address names; null where it names none. */
export function readCriteria(query: URLSearchParams): Criteria | null {
  if (!["filter", "q", "plan", "active", "sort"].some((key) => query.has(key))) return null;
  const filter = query.get("filter");
  const sort = query.get("sort") ?? "";
  const key = sort.replace(/^-/, "");
  return {
    filter: isFilter(filter) ? filter : "all",
    query: query.get("q") ?? "",
    planId: query.get("plan") ?? "",
    days: /^\d{1,4}$/.test(query.get("active") ?? "") ? Number(query.get("active")) : 0,
    ...(isSort(key)
      ? { sort: key, descending: sort.startsWith("-") }
      : { sort: everybody.sort, descending: everybody.descending }),
  };
}

/** Search, filter, plan and order: from the address; where it names none, as they were left. */
export function useCriteria(): readonly [Criteria, (change: Partial<Criteria>) => void] {
  const place = usePlace();
  const [remembered, remember] = useRemembered<Criteria>("users.criteria", everybody, isCriteria);
  const named = readCriteria(place.query);
  const criteria = named ?? remembered;
  const key = JSON.stringify(criteria);
  const { address } = place;
  useEffect(() => {
    const current = JSON.parse(key) as Criteria;
    remember(current);
    if (address.startsWith("/users")) changeQuery(criteriaQuery(current));
  }, [key, address, remember]);
  return [
    criteria,
    (change) => {
      const next = { ...criteria, ...change };
      remember(next);
      changeQuery(criteriaQuery(next));
    },
  ];
}
