import { expect, it } from "vitest";
import type { CaseStatus, FinanceCase } from "../../../../shared/contract/finance.ts";
import { actsOn } from "./case-acts.tsx";
import { lotChange } from "./case-detail.tsx";
import { readFilter } from "./cases.tsx";
import { periodName, periodText } from "./period.ts";
import { readEvent } from "./stripe-events.tsx";

const of = (status: CaseStatus, more: Partial<FinanceCase> = {}): FinanceCase => ({
  difference_id: "PAID_NOT_GRANTED/ch_1",
  class: "PAID_NOT_GRANTED",
  status,
  version: 1,
  amount_minor: 500,
  currency: "usd",
  tokens: -500_000,
  user_id: "u",
  occurred_at: null,
  opened_at: "2026-11-01T00:00:00Z",
  age_days: 3,
  blocks: true,
  is_undecided: true,
  needs_approver: false,
  correction: { action: "grant", books: true },
  resolution: "correct",
  assigned_to: null,
  proposed_by: null,
  approved_by: null,
  posted_by: null,
  posted_at: null,
  last_run_id: "r",
  times_carried: 0,
  history: [],
  ...more,
});

it("offers on each status what the project would take, the likeliest first", () => {
  expect(actsOn(of("open"))[0]).toBe("propose");
  expect(actsOn(of("open", { correction: { action: "investigate", books: false } }))[0]).toBe("investigate");
  expect(actsOn(of("proposed"))[0]).toBe("post");
  expect(actsOn(of("proposed", { needs_approver: true }))[0]).toBe("approve");
  expect(actsOn(of("proposed", { resolution: "write_off" }))).not.toContain("post");
  for (const status of ["posted", "verified"] as const)
    expect(actsOn(of(status)).toSorted()).toEqual(["assign", "note"]);
  for (const status of ["carried_forward", "written_off"] as const)
    expect(actsOn(of(status))).not.toContain("post");
});

it("shows what is to decide unless the address asks for something else, and ignores what is none", () => {
  const read = (query: string) => readFilter(new URLSearchParams(query), "run");
  expect(read("")).toMatchObject({ run_id: "run", undecided: true, status: null, older_than_days: null });
  expect(read("status=all")).toMatchObject({ undecided: null, status: null });
  expect(read("status=written_off&class=ORPHAN")).toMatchObject({ status: ["written_off"], class: "ORPHAN" });
  expect(read("assignee=nobody").assigned_to).toBe("");
  expect(read("assignee==nobody").assigned_to).toBe("nobody");
  expect(read("status=sold&age=-3").older_than_days).toBeNull();
  expect(read("age=1e2").older_than_days).toBe(100);
});

it("reads an event's words from wherever they are, and none from what is no event", () => {
  const event = (object: unknown) => ({ data: { object } });
  expect(
    readEvent(
      event({
        amount_total: 500,
        currency: "usd",
        client_reference_id: "u_1",
        customer_details: { email: "a@example.com" },
        metadata: { packId: "tokens-500k", note: 7 },
      }),
    ),
  ).toMatchObject({
    amount_minor: 500,
    user_id: "u_1",
    pack_id: "tokens-500k",
    email: "a@example.com",
    metadata: [
      ["packId", "tokens-500k"],
      ["note", "7"],
    ],
  });
  for (const odd of [null, 7, "x", [], {}, event(null), event([]), event({ metadata: [1], amount: 1.5 })])
    expect(readEvent(odd)).toMatchObject({ amount_minor: null, user_id: null, metadata: [] });
});

it("says which figures of a lot change, and a period by its first and last day", () => {
  const lot = {
    kind: "purchased",
    granted: 10,
    remaining: 10,
    frozen: 0,
    clawed_back: 0,
    amount_minor: 500,
    currency: "usd",
  };
  expect(lotChange(lot, { ...lot, remaining: 0, clawed_back: 10 })).toBe(
    "remaining 10 → 0, clawed back 0 → 10",
  );
  expect(lotChange(lot, { ...lot, kind: "promotional" })).toBe("purchased → promotional");
  expect(lotChange(null, lot)).toContain("granted 0 → 10");
  expect(periodText("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")).toBe("1 Nov 2026 to 30 Nov 2026");
  expect(periodText("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z")).toBe("1 Nov 2026");
  expect(periodName("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")).toBe("November 2026");
  expect(periodName("2026-11-01T00:00:00Z", "2026-11-16T00:00:00Z")).toBe("1 Nov 2026 to 15 Nov 2026");
});
