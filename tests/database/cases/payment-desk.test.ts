/** Finance's payments, who may have paid, revenue of any range, cases in order, and why a balance is what it is. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject, type Project, use } from "../../support/project.ts";
import { sized } from "../../support/size.ts";
import {
  charge,
  checkoutSession,
  dispute,
  event,
  invoiceBeforeBasil,
  type Purchase,
  refund,
} from "../../support/stripe/events.ts";

const at = (moment: string): number => Date.parse(moment) / 1000;
const begin = "2027-03-03T10:00:00Z";

interface Line {
  readonly currency: string;
  readonly kind: string;
  readonly opening_deferred_minor: number;
  readonly sold_minor: number;
  readonly given_back_minor: number;
  readonly recognised_minor: number;
  readonly closing_deferred_minor: number;
}
interface Listed {
  readonly payments: readonly {
    readonly payment_id: number;
    readonly user_id: string | null;
    readonly charge_id: string | null;
    readonly refunded_minor: number;
    readonly differences: readonly { readonly class: string }[];
  }[];
  readonly next_before_id: number | null;
}

let project: Project;
const purchase = (name: string, userId: string, moment = begin): Purchase => ({
  name,
  userId,
  packId: "tokens-500k",
  tokens: 500_000,
  amountMinor: 500,
  currency: "usd",
  created: at(moment),
});
const tell = async (type: string, object: object): Promise<string> =>
  (await project.rpc<{ status: string }>("process_stripe_event", { p_event: event(type, object) })).status;
const buy = async (p: Purchase): Promise<void> => {
  expect(await tell("checkout.session.completed", checkoutSession(p))).toBe("processed");
  await tell("charge.succeeded", charge(p));
};

beforeAll(async () => {
  project = await openProject(18);
  await project.setClock(begin, true);
});
afterAll(() => project.close());

describe("payments", () => {
  const find = async (text: string | null, state: string | null = null): Promise<(string | null)[]> =>
    (await project.rpc<Listed>("console_payments", { p_filter: { text, state } })).payments.map(
      ({ charge_id: id }) => id,
    );

  beforeAll(async () => {
    for (const name of ["ann", "bob", "cid"])
      await project.rpc("upsert_account", {
        p_user_id: name,
        p_display_name: `${name} example`,
        p_email: `${name}@Example.com`,
      });
    await buy(purchase("a1", "ann"));
    await buy(purchase("a2", "ann"));
    await buy(purchase("b1", "bob"));
    await tell("refund.created", refund(purchase("a2", "ann"), 1, 500));
    await tell("charge.refunded", charge(purchase("a2", "ann"), { amount_refunded: 500, refunded: true }));
    await tell("charge.dispute.created", dispute(purchase("b1", "bob"), "needs_response"));
    // Nobody is named: it waits for a person.
    const lost = purchase("lost", "stranger");
    expect(
      await tell(
        "checkout.session.completed",
        checkoutSession(lost, {
          customer: "cus_ann",
          metadata: { pack_id: lost.packId, tokens: "500000", type: "token_pack_purchase" },
          customer_details: {
            email: "BOB@example.com",
            name: "B",
            address: null,
            phone: null,
            tax_exempt: "none",
            tax_ids: [],
          } as never,
        }),
      ),
    ).toBe("quarantined");
    await project.sql.query(
      `insert into governance.reconciliation_cases (difference_id, class, amount_minor, currency, tokens, period_from, period_to,
         first_run_id, last_run_id, correction, updated_at, opened_at, checked_at, status_at, occurred_at, user_id, difference)
       select x.id, x.class, x.amount, 'usd', x.tokens, now(), now(), 'r', 'r', '{}', now(), now(), now(), now(), x.at, x.who,
         jsonb_build_object('explanation', x.says, 'stripe', jsonb_build_object('charge_id', x.charge, 'customer_id', x.customer))
       from (values
         ('A', 'PAID_NOT_GRANTED', -700, 5, '2027-01-05'::timestamptz, 'ann', 'paid and nothing granted', 'ch_a1', 'cus_ann'),
         ('B', 'FEE_VARIANCE', 30, 0, '2027-01-01', null, 'the fee is odd', null, null),
         ('C', 'ORPHAN', 700, 900, '2027-02-01', null, 'belongs to nothing', 'ch_zz', 'cus_bob'),
         ('D', 'ORPHAN', 0, -12000, '2027-01-20', 'bob', 'belongs to nothing', null, null)) x(id, class, amount, tokens, at, who, says, charge, customer)`,
    );
  });

  it("are found by any id, by customer, by user, name and e-mail, whatever the case of the last", async () => {
    expect(await find("ch_a1")).toEqual(["ch_a1"]);
    expect(await find("pi_b1")).toEqual(["ch_b1"]);
    expect(await find("re_a2_1")).toEqual(["ch_a2"]);
    expect(await find("cus_ann")).toEqual(expect.arrayContaining(["ch_a2", "ch_a1"]));
    expect(await find("ANN@example.com")).toEqual(["ch_a2", "ch_a1"]);
    expect(await find("ann")).toEqual(["ch_a2", "ch_a1"]);
    expect(await find("bob examp")).toEqual(["ch_b1"]);
    expect(await find("nobody@example.com")).toEqual([]);
  });

  it("are listed by how they stand, with the differences about them", async () => {
    expect(await find(null, "refunded")).toEqual(["ch_a2"]);
    expect(await find(null, "disputed")).toEqual(["ch_b1"]);
    expect(await find(null, "difference")).toEqual(["ch_a1"]);
    expect(await find("ann", "refunded")).toEqual(["ch_a2"]);
    for (const [user, ids] of [
      ["bob", ["ch_b1"]],
      ["bo", []],
    ]) {
      const theirs = await project.rpc<Listed>("console_payments", { p_filter: { user_id: user } });
      expect(theirs.payments.map(({ charge_id: id }) => id)).toEqual(ids);
    }
    const [first] = (await project.rpc<Listed>("console_payments", { p_filter: { text: "ch_a1" } })).payments;
    expect(first).toMatchObject({ user_id: "ann", differences: [{ class: "PAID_NOT_GRANTED" }] });
  });

  it("come page by page, each once", async () => {
    const all = (await project.rpc<Listed>("console_payments")).payments.map(({ payment_id: id }) => id);
    const paged: number[] = [];
    for (let before: number | null = null; ; ) {
      const page: Listed = await project.rpc("console_payments", { p_before_id: before, p_limit: 2 });
      paged.push(...page.payments.map(({ payment_id: id }) => id));
      before = page.next_before_id;
      if (before === null) break;
    }
    expect(paged).toEqual(all);
    expect(all.length).toBeGreaterThanOrEqual(3);
  });

  it("of nobody have suggested payers: by the customer at Stripe first, by the e-mail after", async () => {
    const { rows } = await project.sql.query<{ event_id: string }>(
      "select event_id from governance.webhook_events_processed where status = 'quarantined'",
    );
    const payers = await project.rpc<{ user_id: string; why: string }[]>("console_suggest_payers", {
      p_event_id: rows[0]?.event_id,
    });
    expect(payers.map(({ user_id: id, why }) => [id, why])).toEqual([
      ["ann", "customer"],
      ["bob", "email"],
    ]);
    expect(await project.rpc("console_suggest_payers", { p_difference_id: "C" })).toMatchObject([
      { user_id: "bob", why: "customer", value: "cus_bob" },
    ]);
    expect(await project.rpc("console_suggest_payers", { p_difference_id: "B" })).toEqual([]);
    expect(await project.refusal("console_suggest_payers", { p_difference_id: "X" })).toMatchObject({
      hint: "not_found",
    });
    expect(await project.refusal("console_suggest_payers", {})).toMatchObject({ hint: "invalid_argument" });
  });

  it.each<[string, string[]]>([
    ["money", ["A", "C", "B", "D"]],
    ["tokens", ["D", "C", "A", "B"]],
    ["age", ["C", "D", "A", "B"]],
    ["class", ["A", "C", "D", "B"]],
  ])("differences stand in order of %s, page by page, either way", async (sort, expected) => {
    const paged = async (descending: boolean): Promise<string[]> => {
      const ids: string[] = [];
      for (let after: string | null = null; ; ) {
        const page: { cases: { difference_id: string }[] } = await project.rpc(
          "console_reconciliation_cases",
          {
            p_sort: sort,
            p_descending: descending,
            p_after: after,
            p_limit: 1,
          },
        );
        const id = page.cases[0]?.difference_id;
        if (id === undefined) return ids;
        ids.push(id);
        after = id;
      }
    };
    expect(await paged(true)).toEqual(expected);
    expect((await paged(false)).toSorted()).toEqual(["A", "B", "C", "D"]);
  });

  it("differences are searched by ids, users and words", async () => {
    const search = async (text: string): Promise<string[]> =>
      (
        await project.rpc<{ cases: { difference_id: string }[] }>("console_reconciliation_cases", {
          p_text: text,
        })
      ).cases.map(({ difference_id: id }) => id);
    expect(await search("CH_ZZ")).toEqual(["C"]);
    expect(await search("belongs to")).toEqual(["C", "D"]);
    expect(await search("ann")).toEqual(["A"]);
    expect(await search("%")).toEqual([]);
  });

  it.each<[string, Record<string, unknown>]>([
    ["console_payments", { p_filter: { colour: "red" } }],
    ["console_payments", { p_filter: { state: "odd" } }],
    ["console_payments", { p_filter: { text: 7 } }],
    ["console_payments", { p_filter: { user_id: ["ann"] } }],
    ["console_payments", { p_limit: 0 }],
    ["console_reconciliation_cases", { p_sort: "colour" }],
    ["console_revenue", { p_from: "2027-02-01", p_to: "2027-01-01" }],
    ["console_revenue", { p_from: "2027-02-01", p_to: "infinity" }],
    ["console_revenue", { p_from: "2027-02-01", p_to: "2027-02-02", p_step: "hour" }],
  ])("%s refuses %j", async (name, parameters) => {
    expect(await project.refusal(name, parameters)).toMatchObject({
      code: "PT400",
      hint: "invalid_argument",
    });
  });
});

it("a year paid in advance becomes revenue day by day, also beside a refund of what was spent", async () => {
  const one = await openProject(18);
  const paid = {
    name: "year",
    userId: "ann",
    planId: "starter",
    amountMinor: 36_600,
    currency: "usd",
  } as const;
  const revenue = (
    from: string,
    to: string,
  ): Promise<{ lines: Line[]; periods: { recognised_minor: number }[] }> =>
    one.rpc("console_revenue", { p_from: from, p_to: to, p_step: "month" });
  const months = async (): Promise<number[]> =>
    (await revenue("2027-01-01", "2028-01-31")).periods.map((each) => each.recognised_minor);
  await one.setClock("2027-01-01T09:00:00Z", true);
  await one.rpc("upsert_account", { p_user_id: "ann" });
  const year = { start: at("2027-01-01T09:00:00Z"), end: at("2028-01-01T09:00:00Z") };
  await one.rpc("process_stripe_event", {
    p_event: event("invoice.paid", invoiceBeforeBasil({ ...paid, ...year })),
  });
  // 365 days at 100, and what does not divide in the last 100 of them.
  const planned = [
    3100,
    2800,
    3100,
    3000,
    3100,
    3000,
    3100,
    3100,
    3000 + 8,
    3100 + 31,
    3000 + 30,
    3100 + 31,
    0,
  ];
  expect(await months()).toEqual(planned.slice(0, 12));
  for (let more = true; more; ) more = (await one.rpc<{ more: boolean }>("run_maintenance")).more;
  expect(await months()).toEqual(planned.slice(0, 12));
  // All of the first month's tokens are used: what is earned is a matter of days all the same.
  await use(one, "ann", 50_000);
  await one.setClock("2027-03-01T12:00:00Z", true);
  expect((await revenue("2027-02-01", "2027-02-28")).lines).toEqual([
    {
      currency: "usd",
      kind: "subscription",
      opening_deferred_minor: 36_600 - 3_100,
      sold_minor: 0,
      given_back_minor: 0,
      recognised_minor: 2_800,
      closing_deferred_minor: 36_600 - 5_900,
    },
  ]);
  const half = { ...paid, packId: "", tokens: 0, created: at("2027-03-01T12:00:00Z") };
  await one.rpc("process_stripe_event", { p_event: event("refund.created", refund(half, 1, 18_300)) });
  // Half of each day that is over was not earned after all, and each day to come brings half.
  const after = await months();
  expect([after[0], after[1], after[2]]).toEqual([3100, 2800, 3100 / 2 - (3100 + 2800) / 2]);
  expect(after.reduce((sum, each) => sum + each)).toBe(18_300);
  const forward = await one.rpc<Record<string, unknown>[]>("console_token_roll_forward", {
    p_from: "2027-03-01T00:00:00Z",
    p_to: "2027-04-01T00:00:00Z",
  });
  expect(forward.find((line) => line["currency"] === "usd")).toMatchObject({
    opening_deferred_minor: 36_600 - 5_900,
    refunded_minor: 18_300,
    recognised_minor: after[2],
  });
  // What a run takes as deferred at the end of its period is the same.
  const { records } = await one.rpc<{ records: { record_type: string; deferred_minor?: number }[] }>(
    "console_ledger_purchases_since",
    { p_from: "2027-01-01T00:00:00Z", p_to: "2027-03-02T00:00:00Z" },
  );
  expect(records.map((each) => each.deferred_minor)).toEqual([18_300 - 59 * 50, undefined]);
  await one.rpc("process_stripe_event", { p_event: event("refund.created", refund(half, 2, 18_300)) });
  for (let more = true; more; ) more = (await one.rpc<{ more: boolean }>("run_maintenance")).more;
  expect((await months()).reduce((sum, each) => sum + each)).toBe(0);
  expect((await revenue("2027-04-01", "2028-01-31")).lines[0]).toMatchObject({
    opening_deferred_minor: 0,
    recognised_minor: 0,
    closing_deferred_minor: 0,
  });
  await one.close();
});

it("revenue of any days is what the roll-forward says of them, before and after it is counted", async () => {
  const random = dice(5);
  const users = ["r1", "r2", "r3"];
  for (const name of users) await project.rpc("upsert_account", { p_user_id: name });
  const days = sized(40, 400);
  for (let n = 0; n < days; n++) {
    const moment = new Date(Date.parse(begin) + n * 1.7 * 86_400_000).toISOString();
    await project.setClock(moment, true);
    const name = users[Math.floor(random() * users.length)] as string;
    const chance = random();
    if (chance < 0.35) await buy(purchase(`rev${n}`, name, moment));
    else if (chance < 0.45) {
      const sold = purchase(`rev${n}`, name, moment);
      await buy(sold);
      await tell("refund.created", refund(sold, 1, 200));
    } else if (chance < 0.55) {
      const sold = purchase(`rev${n}`, name, moment);
      await buy(sold);
      await tell("charge.dispute.created", dispute(sold, "needs_response"));
      if (random() < 0.5) await tell("charge.dispute.closed", dispute(sold, random() < 0.5 ? "won" : "lost"));
    } else if (chance < 0.7) {
      // A month or a year of a plan, which may be the allowance that is there already, and a part of it refunded.
      const sold = { ...purchase(`rev${n}`, name, moment), amountMinor: 1 + Math.floor(random() * 90_000) };
      const days = random() < 0.5 ? 30 : 365;
      const start = sold.created - Math.floor(random() * 3 * 86_400);
      const plan = { planId: random() < 0.5 ? "starter" : "pro", start, end: start + days * 86_400 };
      await tell("invoice.paid", invoiceBeforeBasil({ ...sold, ...plan }));
      if (random() < 0.5)
        await tell("refund.created", refund(sold, 1, 1 + Math.floor(random() * sold.amountMinor)));
    } else await use(project, name, 1 + Math.floor(random() * 200_000)).catch(() => undefined);
    // Some is counted as it happens, some later.
    if (random() < 0.3) await project.rpc("run_maintenance");
  }
  const check = async (): Promise<void> => {
    for (const [from, to] of [
      ["2027-03-01", "2027-12-31"],
      ["2027-03-10", "2027-03-25"],
      ["2027-04-01", "2027-04-30"],
    ] as const) {
      const { lines, periods } = await project.rpc<{
        lines: Line[];
        periods: { recognised_minor: number; sold_minor: number }[];
      }>("console_revenue", { p_from: from, p_to: to, p_step: "week" });
      const forward = await project.rpc<Record<string, number>[]>("console_token_roll_forward", {
        p_from: `${from}T00:00:00Z`,
        p_to: new Date(Date.parse(`${to}T00:00:00Z`) + 86_400_000).toISOString(),
      });
      const sums = (rows: readonly Readonly<Record<string, unknown>>[], key: string): number =>
        rows.reduce((sum, row) => sum + Number(row[key] ?? 0), 0);
      const found = lines as unknown as Record<string, unknown>[];
      const paid = forward.filter((line) => line["currency"] !== null);
      expect([from, sums(found, "opening_deferred_minor"), sums(found, "closing_deferred_minor")]).toEqual([
        from,
        sums(paid, "opening_deferred_minor"),
        sums(paid, "closing_deferred_minor"),
      ]);
      expect([from, sums(found, "sold_minor")]).toEqual([from, sums(paid, "sold_minor")]);
      // What a range gives back is rounded a lot at a time: here by what is given back in all, there by the range.
      expect(
        Math.abs(sums(found, "recognised_minor") - sums(paid, "recognised_minor")),
        `${from} recognised`,
      ).toBeLessThanOrEqual(days);
      for (const line of lines)
        expect(line.opening_deferred_minor + line.sold_minor).toBe(
          line.given_back_minor + line.recognised_minor + line.closing_deferred_minor,
        );
      expect([sums(periods, "recognised_minor"), sums(periods, "sold_minor")]).toEqual([
        sums(found, "recognised_minor"),
        sums(found, "sold_minor"),
      ]);
    }
  };
  await check();
  // Any open transaction on the server holds counting back for as long as it lasts.
  const uncounted = async (): Promise<number | undefined> => {
    for (let more = true; more; ) more = (await project.rpc<{ more: boolean }>("run_maintenance")).more;
    const { rows } = await project.sql.query<{ n: number }>(
      "select count(*)::int as n from governance.lot_moves((select (value ->> 'consumed')::bigint from governance.maintenance_state where key = 'counted_revenue'), 9223372036854775807)",
    );
    return rows[0]?.n;
  };
  await expect.poll(uncounted).toBe(0);
  await check();
});

it("a balance is explained by the sum of its ledger", async () => {
  for (const name of ["ann", "r1", "r2"]) {
    const found = await project.rpc<{
      total: number;
      subscription: number;
      purchased: number;
      promotional: number;
      lines: { tokens: number; transaction_type: string }[];
    }>("console_explain_balance", { p_user_id: name });
    expect(found.lines.reduce((sum, line) => sum + line.tokens, 0)).toBe(found.total);
    expect(found.subscription + found.purchased + found.promotional).toBe(found.total);
    expect(found.lines.map((line) => line.transaction_type)).toContain("purchase");
  }
  expect(await project.refusal("console_explain_balance", { p_user_id: "nobody" })).toMatchObject({
    hint: "unknown_user",
  });
});
