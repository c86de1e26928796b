/**
 * From Stripe's events and a Dashboard export to a closed period: planted differences are found each in its class,
 * corrected by people, posted by the database, and gone in the next run.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Difference,
  type LedgerRecord,
  type PackPrice,
  type Report,
  reconcile,
  type RollForwardLine,
} from "../../../shared/governance/reconciliation/index.ts";
import {
  charge,
  checkoutSession,
  dispute,
  event,
  type Purchase,
  refund,
} from "../../support/stripe/events.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const HEADER = [
  "id",
  "Created date (UTC)",
  "Amount",
  "Amount Refunded",
  "Currency",
  "Captured",
  "Fee",
  "Status",
  "Customer ID",
  "Invoice ID",
  "PaymentIntent ID",
  "Checkout Session ID",
  "Disputed Amount",
  "Dispute Status",
  "user_id (metadata)",
  "pack_id (metadata)",
].join(",");

const urls = postgresUrls();

describe("from planted differences to a closed period", () => {
  let db: pg.Pool;
  // Noon of the day before yesterday: past every grace.
  const now = Math.floor(Date.now() / 1000);
  const paidAt = now - (now % 86_400) - 2 * 86_400 + 43_200;
  const iso = (seconds: number): string => new Date(seconds * 1000).toISOString();
  const period = { from: iso(paidAt - 86_400), to: iso(paidAt + 86_400) };

  beforeAll(async () => {
    const project = await createProjectDatabase(urls[18], { preset: "athro" });
    db = new pg.Pool({ connectionString: project.ownerUrl, max: 4 });
    await db.query("select governance.set_test_clock($1, true)", [iso(paidAt)]);
  });
  afterAll(async () => {
    await db.end();
  });

  const one = async <T>(sql: string, values: unknown[] = []): Promise<T> =>
    (Object.values((await db.query(sql, values)).rows[0] ?? {}) as T[])[0] as T;
  const purchase = async (name: string): Promise<Purchase> => {
    await db.query("select upsert_account($1, 'full')", [`u_${name}`]);
    return {
      name,
      userId: `u_${name}`,
      packId: "top-up",
      tokens: 320_000,
      amountMinor: 200,
      currency: "gbp",
      created: paidAt,
    };
  };
  const send = async (...events: object[]): Promise<void> => {
    for (const sent of events) {
      const answer = await one<{ status: string; reason: string }>("select process_stripe_event($1)", [
        JSON.stringify(sent),
      ]);
      expect(answer.status, JSON.stringify(answer)).toBe("processed");
    }
  };

  interface Row {
    p: Purchase;
    amount?: string;
    refunded?: string;
    currency?: string;
    status?: string;
    disputed?: string;
    disputeStatus?: string;
    id?: string;
    created?: number;
  }
  const rows: Row[] = [];
  const csv = (): string =>
    `${[
      HEADER,
      ...rows.map(({ p, ...r }) =>
        [
          r.id ?? `ch_${p.name}`,
          iso(r.created ?? p.created + 30)
            .slice(0, 19)
            .replace("T", " "),
          r.amount ?? "2.00",
          r.refunded ?? "0.00",
          r.currency ?? "gbp",
          "true",
          "0.23",
          r.status ?? "Paid",
          `cus_${p.userId}`,
          "",
          `pi_${p.name}`,
          `cs_live_${p.name}`,
          r.disputed ?? "",
          r.disputeStatus ?? "",
          p.userId,
          p.packId,
        ].join(","),
      ),
    ].join("\n")}\n`;

  const run = async (): Promise<Report> => {
    async function* file(): AsyncGenerator<Uint8Array> {
      yield new TextEncoder().encode(csv());
    }
    async function* ledger(): AsyncGenerator<LedgerRecord[]> {
      let cursor: string | null = null;
      for (;;) {
        const page: { records: LedgerRecord[]; next_cursor: string | null; has_more: boolean } = await one(
          "select console_ledger_purchases_since($1, 7, $2, $3)",
          [cursor, period.from, period.to],
        );
        yield page.records;
        if (!page.has_more) return;
        cursor = page.next_cursor;
      }
    }
    const result = await reconcile({
      stripeFiles: [{ name: "unified_payments.csv", size_bytes: null, chunks: file() }],
      ledger: ledger(),
      period,
      options: {
        packs: await one<PackPrice[]>("select console_pack_prices()"),
        roll_forward: await one<RollForwardLine[]>("select console_token_roll_forward($1, $2)", [
          period.from,
          period.to,
        ]),
        data_through: period.to,
      },
    });
    if (!result.ok) throw new Error(JSON.stringify(result.error));
    return result.value;
  };
  const keep = async (runId: string, report: Report): Promise<{ kept: number; verified: number }> => {
    const { differences, ...head } = report;
    return one("select console_keep_reconciliation($1, 'fay', $2, $3)", [
      runId,
      JSON.stringify(head),
      JSON.stringify(differences),
    ]);
  };

  it("ties out while nothing is wrong", async () => {
    for (let i = 0; i < 5; i++) {
      const p = await purchase(`good${i}`);
      await send(
        event("checkout.session.completed", checkoutSession(p)),
        event("charge.succeeded", charge(p)),
      );
      rows.push({ p });
    }
    const refunded = await purchase("refunded");
    await send(
      event("checkout.session.completed", checkoutSession(refunded)),
      event("refund.created", refund(refunded, 1, 50)),
    );
    rows.push({ p: refunded, refunded: "0.50" });
    const lost = await purchase("lost");
    await send(
      event("checkout.session.completed", checkoutSession(lost)),
      event("charge.dispute.closed", dispute(lost, "lost")),
    );
    rows.push({ p: lost, disputed: "2.00", disputeStatus: "lost" });
    const held = await purchase("held");
    await send(
      event("checkout.session.completed", checkoutSession(held)),
      event("charge.dispute.created", dispute(held, "under_review")),
    );
    rows.push({ p: held, disputed: "2.00", disputeStatus: "under_review" });
    const report = await run();
    expect(report.differences).toEqual([]);
    expect(report.roll_forward.length).toBeGreaterThan(0);
    expect(report.tied_out, JSON.stringify(report)).toBe(true);
  });

  it("finds every planted difference in its class, and none besides", async () => {
    const paid = async (name: string, row: Partial<Row> = {}): Promise<Purchase> => {
      const p = await purchase(name);
      await send(
        event("checkout.session.completed", checkoutSession(p)),
        event("charge.succeeded", charge(p)),
      );
      rows.push({ p, ...row });
      return p;
    };
    rows.push({ p: await purchase("webhook_lost") });
    const half = await purchase("lost_and_refunded");
    rows.push({ p: half, refunded: "1.00" });
    await paid("price", { amount: "1.50" });
    await paid("euro", { currency: "eur" });
    await paid("refund_lost", { refunded: "1.00" });
    const over = await paid("over", { refunded: "0.50" });
    await send(event("refund.created", refund(over, 1, 100)));
    await paid("dispute_open", { disputed: "2.00", disputeStatus: "needs_response" });
    const won = await paid("dispute_won", { disputed: "2.00", disputeStatus: "won" });
    await send(event("charge.dispute.created", dispute(won, "needs_response")));
    const gone = await paid("dispute_gone", { disputed: "2.00", disputeStatus: "lost" });
    await send(event("charge.dispute.created", dispute(gone, "needs_response")));
    const unpaid = await purchase("unpaid");
    await send(event("checkout.session.completed", checkoutSession(unpaid)));
    const spent = await paid("spent", { refunded: "2.00" });
    await db.query("select update_user_token_balance($1, -1602000 - 300000, 'usage')", [spent.userId]);
    // One payment credited twice and a wrong quantity, as only a fault in the ledger's own past could do it.
    const double = await paid("double");
    await db.query(
      `select governance.grant_pack(governance.now(), (governance.note_payment(governance.now(), 'pi_other')).payment_id, $1, 'top-up', 320000, 200, 'gbp', governance.now(), 'test')`,
      [double.userId],
    );
    await db.query(
      "update governance.stripe_payments set charge_id = null where payment_intent_id = 'pi_double'",
    );
    await db.query(
      "update governance.stripe_payments set charge_id = 'ch_double' where payment_intent_id = 'pi_other'",
    );
    const short = await purchase("short");
    await db.query(
      `select governance.grant_pack(governance.now(), (governance.note_payment(governance.now(), 'pi_short', 'ch_short')).payment_id, $1, 'top-up', 300000, 200, 'gbp', governance.now(), 'test')`,
      [short.userId],
    );
    rows.push({ p: short });
    const twice = await paid("twice");
    rows.push({ p: twice, id: "ch_twice_again", created: paidAt + 60 });

    const report = await run();
    const found = report.differences.map((d) => d.difference_id.replace(/entry-\d+/, "entry"));
    expect(found).toEqual([
      "PAID_NOT_GRANTED/ch_lost_and_refunded",
      "PAID_NOT_GRANTED/ch_webhook_lost",
      "GRANTED_NOT_PAID/entry",
      "DUPLICATE_GRANT/entry",
      "DUPLICATE_CHARGE/ch_twice_again",
      "AMOUNT_MISMATCH/ch_price",
      "TOKEN_QTY_MISMATCH/ch_short",
      "CURRENCY_MISMATCH/ch_euro",
      "REFUND_NOT_REVERSED/ch_refund_lost",
      "REFUND_OVER_REVERSED/ch_over",
      "REFUND_AFTER_SPEND/ch_spent",
      "DISPUTE_NOT_HELD/ch_dispute_open",
      "DISPUTE_WON_NOT_RESTORED/ch_dispute_won",
      "DISPUTE_LOST_NOT_CHARGED/ch_dispute_gone",
    ]);
    expect(report.tied_out).toBe(false);
    expect(report.bridge.map((line) => line.unexplained_minor)).toEqual(report.bridge.map(() => 0));
    expect(await keep("run-1", report)).toMatchObject({ run_id: "run-1", kept: found.length, verified: 0 });
  });

  let differences: Difference[] = [];

  it("posts what was proposed, once, with a second person above the limit, and previews it exactly", async () => {
    differences = [...(await run()).differences];
    const ids = differences.filter((d) => d.correction.books).map((d) => d.difference_id);
    const [first = ""] = ids;
    await expect(one("select console_post_correction($1, 'fay')", [first])).rejects.toMatchObject({
      hint: "not_proposed",
    });
    await db.query("update governance.settings set value = '100000' where key = 'approval_above_tokens'");
    await db.query(
      "insert into governance.settings (key, value) values ('approval_above_tokens', '100000') on conflict do nothing",
    );
    await one("select console_case_action('c1', $1, 'propose', 'fay')", [ids]);
    expect((await one<{ problems: unknown[] }>("select verify_ledger()")).problems).toEqual([]);
    const preview = await one<{ effects: unknown[]; needs_approver: boolean }>(
      "select console_post_correction($1, 'fay', true)",
      [first],
    );
    expect(preview).toMatchObject({ needs_approver: true, dry_run: true });
    expect(preview.effects).not.toEqual([]);
    await expect(one("select console_post_correction($1, 'fay')", [first])).rejects.toMatchObject({
      hint: "approval_needed",
    });
    await expect(one("select console_case_action('c2', $1, 'approve', 'fay')", [ids])).rejects.toMatchObject({
      hint: "same_person",
    });
    await one("select console_case_action('c3', $1, 'approve', 'moe')", [ids]);
    for (const id of ids) {
      const posted = await one<{ status: string; effects: unknown[] }>(
        "select console_post_correction($1, 'fay')",
        [id],
      );
      expect(posted.status, id).toBe("posted");
      const again = await one<{ effects: unknown[] }>("select console_post_correction($1, 'fay')", [id]);
      expect(again.effects).toEqual(posted.effects);
    }
    for (const proof of ["verify_ledger", "verify_purchases"])
      expect((await one<{ problems: unknown[] }>(`select ${proof}()`)).problems, proof).toEqual([]);
  });

  it("ties out in the next run but for what is a matter for Stripe, and verifies the posted ones", async () => {
    const report = await run();
    expect(report.differences.map((d) => d.difference_id)).toEqual(["DUPLICATE_CHARGE/ch_twice_again"]);
    expect(report.bridge.map((line) => line.unexplained_minor)).toEqual(report.bridge.map(() => 0));
    const kept = await keep("run-2", report);
    expect(kept.verified).toBe(differences.filter((d) => d.correction.books).length);
  });

  it("closes the period with a seal, once all is dealt with, and never twice", async () => {
    await db.query("select governance.set_test_clock(null)");
    // Read when the period is over: a run from before its end cannot close it.
    await expect(one("select console_close_period('p0', 'run-2', 'fay')")).rejects.toMatchObject({
      hint: "period_not_over",
    });
    await keep("run-3", await run());
    await expect(one("select console_close_period('p1', 'run-3', 'fay')")).rejects.toMatchObject({
      hint: "still_open",
    });
    await one(
      "select console_case_action('c4', $1, 'carry_forward', 'fay', 'Refunded in Stripe on Monday')",
      [["DUPLICATE_CHARGE/ch_twice_again"]],
    );
    const closed = await one<{ seal: string }>(
      "select console_close_period('p2', 'run-3', 'fay', 'All in order')",
    );
    expect(closed.seal).toMatch(/^[0-9a-f]{64}$/);
    expect(await one("select console_close_period('p2', 'run-3', 'fay', 'All in order')")).toEqual(closed);
    await expect(one("select console_close_period('p3', 'run-3', 'fay')")).rejects.toMatchObject({
      hint: "already_closed",
    });
    const [shown] = await one<{ is_intact: boolean; seal: string }[]>("select console_closed_periods()");
    expect(shown).toMatchObject({ is_intact: true, seal: closed.seal });
    await expect(
      db.query("update governance.reconciliation_periods set sign_off = 'x'"),
    ).rejects.toMatchObject({ hint: "append_only" });
  });
});
