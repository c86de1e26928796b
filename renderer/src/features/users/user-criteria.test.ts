import { expect, it } from "vitest";
import { placeAddress, parsePlace } from "../../lib/router.ts";
import { criteriaQuery, readCriteria } from "./user-criteria.ts";

const usual = {
  filter: "all",
  query: "",
  planId: "",
  days: 0,
  sort: "last_activity",
  descending: true,
} as const;

it("the address carries whatever is not as usual, and reads back as the same", () => {
  expect(criteriaQuery(usual)).toEqual({ filter: "", q: "", plan: "", active: "", sort: "" });
  for (const of of [
    { ...usual, filter: "blocked" },
    { ...usual, query: "ada & bob?#%", planId: "pro+" },
    { ...usual, days: 30 },
    { ...usual, sort: "name", descending: false },
    { ...usual, sort: "available", descending: true },
  ] as const)
    expect(readCriteria(parsePlace(`#${placeAddress(["users"], criteriaQuery(of))}`).query)).toEqual(of);
});

it("an address that names nothing leaves the list as it was left; nonsense in it is as usual", () => {
  expect(readCriteria(new URLSearchParams("tab=1"))).toBeNull();
  expect(readCriteria(new URLSearchParams("filter=nosuch&sort=-evil"))).toEqual(usual);
});
