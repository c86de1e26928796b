/** What happened to one account: on one line of time, in its ledger, and proven. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { HistoryItem, LedgerEntry } from "../../../shared/contract/index.ts";
import { historyKinds, historyOperations } from "../../../shared/contract/index.ts";
import { alertSentence } from "../../../shared/governance/alerts/words.ts";
import {
  expectSoundBooks,
  installedVersions,
  openProject,
  type Project,
  use,
} from "../../support/project.ts";
import { charge, checkoutSession, dispute, event, refund } from "../../support/stripe/events.ts";

const purchase = {
  name: "hist",
  userId: "ann",
  packId: "tokens-500k",
  tokens: 500_000,
  amountMinor: 500,
  currency: "usd",
  created: Math.floor(Date.now() / 1000) - 3600,
};

describe.each(installedVersions())("the history of an account, on PostgreSQL %i", (version) => {
  let desk: Project;

  beforeAll(async () => {
    desk = await openProject(version);
    await desk.rpc("upsert_account", { p_user_id: "ann", p_email: "ann@example.com", p_display_name: "Ann" });
    const stripe = async (type: string, object: object): Promise<void> => {
      const answer = await desk.rpc<{ status: string }>("process_stripe_event", {
        p_event: event(type, object),
      });
      expect(answer.status).toBe("processed");
    };
    await stripe("checkout.session.completed", checkoutSession(purchase));
    await stripe("charge.succeeded", charge(purchase)).catch(() => undefined);
    await stripe("refund.created", refund(purchase, 1, 100)).catch(() => undefined);
    await stripe("charge.dispute.created", dispute(purchase, "needs_response"));
    await use(desk, "ann", 700);
    for (let count = 0; count < 12; count += 1)
      await desk.rpc("authorize_usage", {
        p_request_id: `spam-${count}`,
        p_user_id: "ann",
        p_model: "gpt-4o-mini",
        p_message: "win money",
      });
    await desk.rpc("console_act", {
      p_command_id: "act-1",
      p_user_id: "ann",
      p_act: { kind: "give_tokens", tokens: 25_000, lot_kind: "promotional" },
      p_reason: "Goodwill (ticket 77)",
      p_operator: "op",
    });
    await desk.rpc("run_maintenance");
    await desk.sql.query(
      `select governance.raise_alert(null, a.account_id, 'user_budget', 'warning', 'as the database says it', 10000000,
         12500000, '2027-W01', '{"metric": "cost_micros", "currency": "usd"}', governance.now())
       from governance.accounts a where a.user_id = 'ann'`,
    );
  });
  afterAll(() => desk?.close());

  interface Page {
    readonly items: HistoryItem[];
    readonly next_cursor: string | null;
  }
  const history = (more: object = {}): Promise<Page> =>
    desk.rpc<Page>("console_account_history", { p_user_id: "ann", ...more });
  const everything = async (
    limit: number,
    kinds: readonly string[] | null = null,
  ): Promise<HistoryItem[]> => {
    const items: HistoryItem[] = [];
    let cursor: string | null = null;
    do {
      const page: Page = await history({ p_limit: limit, p_cursor: cursor, p_filter: { kinds } });
      items.push(...page.items);
      cursor = page.next_cursor;
    } while (cursor !== null);
    return items;
  };

  it("lists what was stopped, paid, refunded, disputed, given and done, newest first, in records that read", async () => {
    const page = await history({ p_limit: 200 });
    expect(historyOperations["users.history"].output.safeParse(page).error).toBeUndefined();
    const kinds = new Set(page.items.map(({ kind }) => kind));
    expect([...kinds]).toEqual(
      expect.arrayContaining(["stopped", "purchase", "refund", "dispute", "grant", "act"]),
    );
    const times = page.items.map(({ at }) => Date.parse(at));
    expect(times).toEqual(times.toSorted((a, b) => b - a));
    expect(page.items.find(({ kind }) => kind === "purchase")).toMatchObject({
      amount_minor: 500,
      tokens: 500_000,
      payment_intent_id: "pi_hist",
    });
    // An alert has what it is said from, in the reader's language.
    const alert = page.items.find((item) => item.kind === "alert" && item.alert_kind === "user_budget");
    expect(alert?.kind === "alert" ? alertSentence({ ...alert, kind: alert.alert_kind }) : null).toBe(
      "US$12.50 used so far (the week from 4 January 2027).",
    );
    expect(page.items.filter(({ kind }) => kind === "stopped").length).toBeGreaterThanOrEqual(2);
    // The payment's own grant is not told twice.
    expect(page.items.filter((item) => item.kind === "grant" && item.amount === 500_000)).toEqual([]);
    expect(page.items.filter((item) => item.kind === "grant" && item.amount === 25_000)).toHaveLength(1);
  });

  it("gives the same in pages of any size, each once, and each kind alone", async () => {
    const whole = await everything(200);
    expect(new Set(whole.map(({ key }) => key)).size).toBe(whole.length);
    for (const limit of [1, 3, 7]) expect(await everything(limit)).toEqual(whole);
    for (const kind of historyKinds)
      expect(await everything(2, [kind])).toEqual(whole.filter((item) => item.kind === kind));
  });

  it("refuses what it cannot read, and a user who is not there", async () => {
    for (const wrong of [
      { p_filter: { kinds: ["nothing"] } },
      { p_filter: { kinds: "act" } },
      { p_filter: { nosuch: 1 } },
      { p_filter: null },
      { p_filter: { kinds: [null] } },
      { p_cursor: "x" },
      { p_cursor: "99999999999999999999.1.1" },
      { p_limit: 0 },
      { p_limit: 201 },
    ])
      expect((await desk.refusal("console_account_history", { p_user_id: "ann", ...wrong })).hint).toBe(
        "invalid_argument",
      );
    expect((await desk.refusal("console_account_history", { p_user_id: "nobody" })).hint).toBe(
      "unknown_user",
    );
  });

  const ledger = async (filter: object = {}, limit = 50): Promise<LedgerEntry[]> => {
    const entries: LedgerEntry[] = [];
    let before: number | null = null;
    do {
      const page: { entries: LedgerEntry[]; next_before_id: number | null } = await desk.rpc(
        "console_account_ledger",
        { p_user_id: "ann", p_filter: filter, p_before_id: before, p_limit: limit },
      );
      expect(historyOperations["users.ledger"].output.safeParse(page).error).toBeUndefined();
      entries.push(...page.entries);
      before = page.next_before_id;
    } while (before !== null);
    return entries;
  };

  it("says of each entry of the ledger where it came from and which lots it moved", async () => {
    const entries = await ledger();
    expect(await ledger({}, 2)).toEqual(entries);
    const origins = entries.map(({ origin }) => origin.kind);
    expect(origins).toEqual(
      expect.arrayContaining(["call", "payment", "act", "refund", "dispute", "allowance"]),
    );
    for (const entry of entries)
      expect(entry.lots.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(entry.amount);
    expect(entries.find(({ origin }) => origin.kind === "act")?.origin).toMatchObject({ operator: "op" });
    expect(entries.find(({ origin }) => origin.kind === "payment")?.origin).toMatchObject({
      payment_intent_id: "pi_hist",
    });
  });

  it("finds entries by type, by part of an id, a reason or a description, and between two moments", async () => {
    const entries = await ledger();
    expect(await ledger({ type: "usage" })).toEqual(
      entries.filter(({ transaction_type: type }) => type === "usage"),
    );
    expect((await ledger({ text: "TICKET 77" })).map(({ amount }) => amount)).toEqual([25_000]);
    const [newest] = entries;
    expect(await ledger({ text: String(newest?.transaction_id) })).toContainEqual(newest);
    expect(await ledger({ text: "100%_" })).toEqual([]);
    expect(await ledger({ to: "2020-01-01T00:00:00Z" })).toEqual([]);
    expect(await ledger({ from: "2020-01-01T00:00:00Z" })).toEqual(entries);
    for (const wrong of [[], { nosuch: 1 }, { from: "soon" }, { text: "x".repeat(201) }])
      expect((await desk.refusal("console_account_ledger", { p_user_id: "ann", p_filter: wrong })).hint).toBe(
        "invalid_argument",
      );
  });

  it("reading changes nothing: the books are sound", async () => {
    await expectSoundBooks(desk);
  });
});
