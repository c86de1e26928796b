import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CLASSES } from "../../../shared/governance/reconciliation/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();
const day = 86_400_000;
const now = Date.now();
const from = new Date(now - 40 * day).toISOString();
const to = new Date(now - 10 * day).toISOString();

interface Case {
  readonly status: string;
  readonly user_id: string | null;
  readonly tokens: number;
  readonly blocks: boolean;
  readonly correction: Readonly<Record<string, unknown>>;
  readonly difference: { readonly user_id: string | null; readonly tokens: number };
}

describe("a case: what is at stake, proposed and posted is one figure, of one named person", () => {
  let db: pg.Pool;
  let runs = 0;
  beforeAll(async () => {
    const project = await createProjectDatabase(urls[18], { preset: "athro" });
    db = new pg.Pool({ connectionString: project.ownerUrl, max: 2 });
    await db.query("update governance.settings set value = '1000000000' where key like 'approval_above_%'");
    await db.query(
      "insert into governance.settings (key, value) values ('approval_above_tokens', '1000000000'), ('approval_above_minor', '1000000000') on conflict (key) do nothing",
    );
  });
  afterAll(async () => {
    await db.end();
  });

  const one = async <T>(sql: string, values: readonly unknown[] = []): Promise<T> =>
    (Object.values((await db.query(sql, [...values])).rows[0] ?? {}) as T[])[0] as T;

  async function keep(difference: Readonly<Record<string, unknown>>): Promise<Case> {
    await one("select console_keep_reconciliation($1, 'fay', $2, $3)", [
      `run-${++runs}`,
      { tied_out: false, period: { from, to }, inputs: [] },
      JSON.stringify([{ amount_minor: 2000, currency: "usd", tokens: 0, user_id: null, ...difference }]),
    ]);
    return found(String(difference["difference_id"]));
  }
  async function found(id: string): Promise<Case> {
    const page = await one<{ cases: Case[] }>("select console_reconciliation_cases(p_difference_ids => $1)", [
      [id],
    ]);
    return page.cases[0] as Case;
  }

  it("has the same classes in the database as in the core: names, meanings, and which keep a period open", async () => {
    const { rows } = await db.query<{ class: string; name: string; means: string; blocks: boolean }>(
      "select class, name, means, blocks from governance.difference_classes",
    );
    expect(Object.fromEntries(rows.map(({ class: code, ...facts }) => [code, facts]))).toEqual(CLASSES);
  });

  it("keeps a class open or only listed as the table says, where a report does not say itself", async () => {
    const listed = await keep({
      difference_id: "TIMING/x",
      class: "TIMING",
      correction: { action: "carry_forward" },
    });
    const open = await keep({
      difference_id: "ORPHAN/x",
      class: "ORPHAN",
      correction: { action: "investigate" },
    });
    expect([listed.blocks, open.blocks]).toEqual([false, true]);
  });

  it("knows the person by the Stripe customer, and a missed subscription period as a month of their plan", async () => {
    await one("select upsert_account('ann', 'full')");
    await db.query(
      "insert into governance.stripe_customers (customer_id, account_id) select 'cus_ann', account_id from governance.accounts where user_id = 'ann'",
    );
    const allowance = Number(
      await one("select monthly_allowance from governance.plans where plan_id = 'full'"),
    );
    expect(allowance).toBeGreaterThan(0);
    const id = "SUB_PERIOD_GAP/ch_gap";
    const kept = await keep({
      difference_id: id,
      class: "SUB_PERIOD_GAP",
      correction: {
        action: "grant",
        books: true,
        grant_kind: "subscription",
        customer_id: "cus_ann",
        charge_id: "ch_gap",
        invoice_id: "in_gap",
        amount_minor: 2000,
        currency: "usd",
        tokens: null,
        user_id: null,
      },
    });
    expect(kept).toMatchObject({
      user_id: "ann",
      tokens: -allowance,
      difference: { user_id: "ann", tokens: -allowance },
      correction: { user_id: "ann", tokens: allowance, plan_id: "full" },
    });
    await one("select console_case_action('gap', $1, 'propose', 'fay')", [[id]]);
    const preview = await one<{ effects: { tokens: number }[] }>(
      "select console_post_correction($1, 'fay', true)",
      [id],
    );
    const posted = await one<{ effects: { type: string; tokens: number; user_id: string }[] }>(
      "select console_post_correction($1, 'fay')",
      [id],
    );
    expect(posted.effects).toMatchObject([{ type: "grant", tokens: allowance, user_id: "ann" }]);
    expect(preview.effects.map((effect) => effect.tokens)).toEqual([allowance]);
    expect(await found(id)).toMatchObject({ status: "posted", user_id: "ann", tokens: -allowance });
    // Subscription tokens, which end; not a pack, which never does.
    const { rows } = await db.query(
      "select l.kind, l.expires_at is not null as ends, l.amount_minor from governance.lots l join governance.stripe_lots s using (lot_id) join governance.stripe_payments p using (payment_id) where p.charge_id = 'ch_gap'",
    );
    expect(rows).toEqual([{ kind: "subscription", ends: true, amount_minor: "2000" }]);
    expect(await one("select verify_ledger() -> 'problems'")).toEqual([]);
    expect(await one("select verify_purchases() -> 'problems'")).toEqual([]);
  });

  it("names whom the proposer named, from the proposal on, and moves as many tokens as were proposed", async () => {
    await one("select upsert_account('ben', 'full')");
    const id = "PAID_NOT_GRANTED/ch_ben";
    const kept = await keep({
      difference_id: id,
      class: "PAID_NOT_GRANTED",
      correction: {
        action: "grant",
        books: true,
        grant_kind: "purchase",
        charge_id: "ch_ben",
        amount_minor: 2000,
        currency: "usd",
        tokens: null,
        user_id: null,
      },
    });
    expect(kept).toMatchObject({ user_id: null, tokens: 0 });
    await one("select console_case_action('ben', $1, 'propose', 'fay', null, $2)", [
      [id],
      { correction: { user_id: "ben", tokens: 7_000 } },
    ]);
    expect(await found(id)).toMatchObject({ status: "proposed", user_id: "ben", tokens: -7_000 });
    await one("select console_post_correction($1, 'fay')", [id]);
    expect(await found(id)).toMatchObject({
      status: "posted",
      user_id: "ben",
      tokens: -7_000,
      correction: { user_id: "ben", tokens: 7_000 },
    });
  });

  it("never finds nothing to be unexplained, whatever a fee difference explains", async () => {
    const { rows } = await db.query(
      "select governance.is_unexplained('0', 10) as nothing, governance.is_unexplained('-10', 10) as explained, governance.is_unexplained('3', 10) as off, governance.is_unexplained('null', 10) as none, governance.is_unexplained('\"x\"', 0) as unreadable",
    );
    expect(rows).toEqual([{ nothing: false, explained: false, off: true, none: false, unreadable: true }]);
  });
});
