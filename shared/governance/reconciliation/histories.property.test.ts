/**
 * Histories of payments against a plain model: captures in part, refunds that fail, payments that fail after they were
 * booked, reported by any of Stripe's exports in any order of rows, beside a ledger that is right or has one fault. The
 * model knows what is due; the reconciliation must find the fault in its class, and nothing where there is none.
 */
import { env } from "node:process";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { proRata } from "../money/index.ts";
import { type InputFile, type LedgerRecord, reconcile, type Report } from "./index.ts";
import { memoryOf, readPart } from "./part.ts";

/** `TESTS` gives another number, as tests/support/size.ts says. */
const asked = env["TESTS"];
const histories = asked === "whole" ? 10_000 : Number(asked ?? 100);
const parameters = { numRuns: histories, seed: 20261128 };

const FROM = Date.parse("2026-10-01T00:00:00Z") / 1000;
const TO = Date.parse("2026-11-01T00:00:00Z") / 1000;
const DAY = 86_400;
const period = { from: "2026-10-01", to: "2026-11-01" };

interface Refund {
  readonly amount: number;
  readonly at: number;
  readonly failedAt: number | null;
}

type Fault = "none" | "not_granted" | "refund_kept" | "taken_too_much";

interface Payment {
  readonly n: number;
  /** What was captured, and authorised beyond that. */
  readonly amount: number;
  readonly uncaptured: number;
  readonly tokens: number;
  readonly at: number;
  readonly refunds: readonly Refund[];
  readonly failedAt: number | null;
  readonly fault: Fault;
}

type Form = "payments" | "payments_captured" | "itemized" | "history" | "history_by_charge";

const payment = (n: number): fc.Arbitrary<Payment> =>
  fc
    .record({
      amount: fc.integer({ min: 100, max: 9_999 }),
      uncaptured: fc.option(fc.integer({ min: 1, max: 5_000 }), { nil: 0, freq: 4 }),
      // Enough that each cent corresponds to a token: a refund of none leaves no trace in the ledger.
      tokens: fc.integer({ min: 10_000, max: 5_000_000 }),
      day: fc.integer({ min: 0, max: 24 }),
      parts: fc.array(
        fc.record({
          share: fc.integer({ min: 1, max: 60 }),
          // Some come after the period has ended.
          days: fc.integer({ min: 1, max: 12 }),
          fails: fc.option(fc.integer({ min: 1, max: 4 }), { nil: null, freq: 4 }),
        }),
        { maxLength: 3 },
      ),
      fails: fc.option(fc.integer({ min: 1, max: 12 }), { nil: null, freq: 6 }),
      fault: fc.constantFrom<Fault>("none", "none", "none", "not_granted", "refund_kept", "taken_too_much"),
    })
    .map(({ amount, uncaptured, tokens, day, parts, fails, fault }) => {
      const at = FROM + day * DAY + 3_600 + n;
      const failedAt = fails === null || uncaptured > 0 ? null : at + fails * DAY;
      const refunds: Refund[] = [];
      if (failedAt === null) {
        let standing = 0;
        for (const { share, days, fails: failing } of parts) {
          const refundAt = (refunds.at(-1)?.failedAt ?? refunds.at(-1)?.at ?? at) + days * DAY;
          const part = Math.min(amount - standing, Math.max(1, Math.floor((amount * share) / 100)));
          if (part <= 0) continue;
          refunds.push({
            amount: part,
            at: refundAt,
            failedAt: failing === null ? null : refundAt + failing * DAY,
          });
          if (failing === null) standing += part;
        }
      }
      return { n, amount, uncaptured, tokens, at, refunds, failedAt, fault };
    });

const world = fc.integer({ min: 1, max: 6 }).chain((size) =>
  fc.record({
    payments: fc.tuple(...Array.from({ length: size }, (_, n) => payment(n))),
    forms: fc.constantFrom<readonly Form[]>(
      ["payments"],
      ["payments_captured"],
      ["itemized"],
      ["history"],
      ["history_by_charge"],
      ["payments_captured", "itemized"],
      ["payments_captured", "history_by_charge"],
      ["payments", "itemized"],
    ),
    shuffle: fc.integer(),
    end: fc.constantFrom("\n", "\r\n", "\r"),
  }),
);

const utc = (seconds: number): string =>
  new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");
const iso = (seconds: number): string => new Date(seconds * 1000).toISOString();
const major = (minor: number): string => (minor / 100).toFixed(2);

/** Refunded by a moment, failed ones out of it from their failure on. */
function refundedBy(p: Payment, end: number): number {
  return p.refunds.reduce(
    (sum, { amount, at, failedAt }) =>
      sum + (at < end && (failedAt === null || failedAt >= end) ? amount : 0),
    0,
  );
}
const known = Number.POSITIVE_INFINITY;

// --- the ledger as it should be, or with its fault ---------------------------------------------------------------

function ledgerOf(payments: readonly Payment[]): LedgerRecord[] {
  const records: Omit<LedgerRecord, "transaction_id">[] = [];
  for (const p of payments) {
    if (p.fault === "not_granted") continue;
    const of = { user_id: `u${p.n}`, lot_id: p.n + 1, currency: "usd", charge_id: `ch_${p.n}` } as const;
    records.push({
      ...of,
      record_type: "grant",
      tokens: p.tokens,
      grant_kind: "purchase",
      amount_minor: p.amount,
      created_at: iso(p.at + 60),
      payment_intent_id: `pi_${p.n}`,
      pack_id: "pack",
    });
    const moves = p.refunds
      .flatMap(({ at, failedAt, amount }, i) => [
        { at, amount, type: "refund" as const, i },
        ...(failedAt === null ? [] : [{ at: failedAt, amount, type: "restoration" as const, i }]),
      ])
      .toSorted((a, b) => a.at - b.at);
    let taken = 0;
    for (const [step, { at, type, amount, i }] of moves.entries()) {
      const due = proRata(p.tokens, refundedBy(p, at + 1), p.amount);
      const isKept = p.fault === "refund_kept" && step === keptStep(moves);
      if (due !== taken && !isKept)
        records.push({
          ...of,
          record_type: type,
          tokens: taken - due,
          amount_minor: type === "refund" ? amount : 0,
          refund_id: `re_${p.n}_${i}`,
          created_at: iso(at + 60),
        });
      if (!isKept) taken = due;
    }
    if (p.failedAt !== null && p.fault !== "refund_kept")
      records.push({ ...of, record_type: "refund", tokens: -p.tokens, created_at: iso(p.failedAt + 60) });
    if (p.fault === "taken_too_much" && excess(p) > 0)
      records.push({ ...of, record_type: "refund", tokens: -excess(p), created_at: iso(p.at + 120) });
  }
  return records.map((record, i) => ({ ...record, transaction_id: i + 1 }));
}

/** The step that the ledger missed: the last of the period, where what followed did not settle it. */
function keptStep(moves: readonly { at: number }[]): number {
  return moves.length === 1 && (moves[0]?.at ?? TO) < TO ? 0 : -1;
}
/** Tokens taken beyond what any refund calls for. */
const excess = (p: Payment): number =>
  p.refunds.length === 0 && p.failedAt === null ? Math.ceil(p.tokens / 2) : 0;

// --- what the reconciliation must find -----------------------------------------------------------------------------

function expectedOf(p: Payment, isDated: boolean): string[] {
  // The payments list says that a payment failed, and not when.
  const isFailed = p.failedAt !== null && (p.failedAt < TO || !isDated);
  if (p.fault === "not_granted") {
    if (isFailed || refundedBy(p, TO) >= p.amount) return [];
    return [`PAID_NOT_GRANTED/ch_${p.n}`];
  }
  if (p.fault === "refund_kept") {
    if (isFailed) return [`GRANTED_NOT_PAID/ch_${p.n}`];
    if (p.failedAt !== null || p.refunds.length !== 1) return [];
    const [refund] = p.refunds as [Refund];
    const isTold = refund.at < TO && refund.failedAt === null;
    return isTold && proRata(p.tokens, refund.amount, p.amount) > 0 ? [`REFUND_NOT_REVERSED/ch_${p.n}`] : [];
  }
  return p.fault === "taken_too_much" && excess(p) > 0 ? [`REFUND_OVER_REVERSED/ch_${p.n}`] : [];
}

// --- Stripe's exports ----------------------------------------------------------------------------------------------

function paymentRows(payments: readonly Payment[], isCaptureTold: boolean): readonly (readonly string[])[] {
  const columns = ["id", "Created date (UTC)", "Amount", ...(isCaptureTold ? ["Amount Captured"] : [])];
  return [
    [
      ...columns,
      "Amount Refunded",
      "Refunded date (UTC)",
      "Currency",
      "Captured",
      "Fee",
      "Status",
      "PaymentIntent ID",
      "pack_id (metadata)",
    ],
    ...payments.map((p) => {
      const refunded = refundedBy(p, known);
      const last = p.refunds.filter(({ failedAt }) => failedAt === null).at(-1);
      return [
        `ch_${p.n}`,
        utc(p.at),
        major(p.amount + p.uncaptured),
        ...(isCaptureTold ? [major(p.amount)] : []),
        major(refunded + p.uncaptured),
        last ? utc(last.at) : "",
        "usd",
        "true",
        "0.30",
        p.failedAt === null ? "Paid" : "Failed",
        `pi_${p.n}`,
        "pack",
      ];
    }),
  ];
}

function movements(
  p: Payment,
): { type: string; category: string; source: string; at: number; gross: number }[] {
  const charge = `ch_${p.n}`;
  return [
    { type: "charge", category: "charge", source: charge, at: p.at, gross: p.amount + p.uncaptured },
    ...(p.uncaptured === 0
      ? []
      : [
          {
            type: "refund",
            category: "partial_capture_reversal",
            source: `re_${p.n}_open`,
            at: p.at,
            gross: -p.uncaptured,
          },
        ]),
    ...p.refunds.flatMap(({ amount, at, failedAt }, i) => [
      { type: "refund", category: "refund", source: `re_${p.n}_${i}`, at, gross: -amount },
      ...(failedAt === null
        ? []
        : [
            {
              type: i % 2 === 0 ? "adjustment" : "refund_failure",
              category: "refund_failure",
              source: `re_${p.n}_${i}`,
              at: failedAt,
              gross: amount,
            },
          ]),
    ]),
    ...(p.failedAt === null
      ? []
      : [
          {
            type: "payment_failure_refund",
            category: "charge_failure",
            source: charge,
            at: p.failedAt,
            gross: -p.amount,
          },
        ]),
  ];
}

const transaction = (p: Payment, i: number): string => `txn_${p.n}_${i}`;

function itemizedRows(payments: readonly Payment[]): readonly (readonly string[])[] {
  return [
    "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,charge_id,payment_intent_id,payment_metadata[pack_id]".split(
      ",",
    ),
    ...payments.flatMap((p) =>
      movements(p).map(({ category, source, at, gross }, i) => [
        transaction(p, i),
        utc(at),
        "usd",
        major(gross),
        "0.00",
        major(gross),
        category,
        source,
        `ch_${p.n}`,
        `pi_${p.n}`,
        "pack",
      ]),
    ),
  ];
}

function historyRows(payments: readonly Payment[], isByCharge: boolean): readonly (readonly string[])[] {
  return [
    "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC),Available On (UTC),Description,pack_id (metadata)".split(
      ",",
    ),
    ...payments.flatMap((p) =>
      movements(p).map(({ type, source, at, gross }, i) => [
        transaction(p, i),
        type,
        isByCharge ? `ch_${p.n}` : source,
        major(gross),
        "0.00",
        major(gross),
        "usd",
        utc(at),
        utc(at),
        type === "adjustment" ? `REFUND FAILURE (Credit back for ch_${p.n})` : "x",
        "pack",
      ]),
    ),
  ];
}

/** A shuffle that a number decides. */
function shuffled<T>(list: readonly T[], seed: number): T[] {
  const out = [...list];
  let state = seed >>> 0 || 1;
  for (let i = out.length - 1; i > 0; i--) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const j = state % (i + 1);
    [out[i], out[j]] = [out[j] as T, out[i] as T];
  }
  return out;
}

/** How the files are read, and whether the ledger comes as one of them. */
type Reading = "records" | "here" | "apart";

/** In pieces, as a stream comes. A thread hands over what it read; here it is handed over without one. */
function fileOf(
  name: string,
  rows: readonly (readonly string[])[],
  end: string,
  reading: Reading,
): InputFile {
  const bytes = new TextEncoder().encode(rows.map((row) => row.join(",") + end).join(""));
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += 97) yield bytes.slice(at, at + 97);
  }
  const file = { name, size_bytes: null, chunks: pieces() };
  if (reading !== "apart") return file;
  return {
    ...file,
    size_bytes: 1 << 24,
    read_apart: ({ of, options }, onChunk) => ({
      done: readPart({ ...file, chunks: pieces() }, of, options, onChunk).then((part) =>
        part.ok ? structuredClone(part, { transfer: memoryOf(part.value) }) : part,
      ),
      stop: async () => undefined,
    }),
  };
}

async function run(
  files: readonly (readonly (readonly string[])[])[],
  ledger: readonly LedgerRecord[],
  shuffle: number,
  end: string,
  reading: Reading = "records",
): Promise<Report> {
  const records = shuffled(ledger, shuffle);
  const fields = [...new Set(records.flatMap((record) => Object.keys(record)))] as (keyof LedgerRecord)[];
  const lines = records.map((record) => fields.map((field) => String(record[field] ?? "")));
  const result = await reconcile({
    stripeFiles: files.map(([header = [], ...rows], i) =>
      fileOf(`${i}.csv`, [header, ...shuffled(rows, shuffle + i)], end, reading),
    ),
    ledger:
      reading === "records"
        ? (async function* () {
            yield records;
          })()
        : fileOf("ledger.csv", [fields, ...lines], end, reading),
    period,
    options: { data_through: "2026-12-31", ledger_through: "2026-12-31" },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
}

describe("generated histories of captures, refunds and failures", () => {
  it("give the model's differences, in every form of export, in any order of rows", async () => {
    await fc.assert(
      fc.asyncProperty(world, async ({ payments: drawn, forms, shuffle, end }) => {
        // The list of refunds alone does not show a part that was never captured, nor when several went back.
        const tellsCaptures = !forms.every((form) => form === "payments" || form.startsWith("history"));
        // Balance history names a refund without its payment: only a ledger that knows the refund can tell.
        const isNameless = forms.length === 1 && forms[0] === "history";
        const payments = drawn.map((p) => ({
          ...p,
          fault: isNameless ? ("none" as const) : p.fault,
          uncaptured: tellsCaptures || (forms[0] === "payments" && p.fault === "none") ? p.uncaptured : 0,
          refunds: forms.length === 1 && forms[0]?.startsWith("payments") ? p.refunds.slice(0, 1) : p.refunds,
        }));
        const isDated = forms.some((form) => !form.startsWith("payments"));
        const files = forms.map((form) =>
          form === "itemized"
            ? itemizedRows(payments)
            : form.startsWith("history")
              ? historyRows(payments, form === "history_by_charge")
              : paymentRows(payments, form === "payments_captured"),
        );
        const report = await run(files, ledgerOf(payments), shuffle, end);
        const entryOf = new Map(
          ledgerOf(payments)
            .filter(({ record_type: type }) => type === "grant")
            .map((grant) => [`entry-${grant.transaction_id}`, grant.charge_id]),
        );
        const found = report.differences.map(({ difference_id: id }) =>
          id.replace(/entry-\d+/, (entry) => entryOf.get(entry) ?? entry),
        );
        expect(found.toSorted()).toEqual(payments.flatMap((p) => expectedOf(p, isDated)).toSorted());
        for (const line of report.bridge) expect(line.unexplained_minor).toBe(0);
        for (const line of report.tie_out) expect(line.unexplained_minor ?? 0).toBe(0);
        expect(report.tied_out).toBe(found.length === 0);
        // Each file in a thread of its own gives the report, to the letter, that one file after the other gives.
        const here = await run(files, ledgerOf(payments), shuffle, end, "here");
        expect(here.differences.map((one) => one.difference_id)).toEqual(
          report.differences.map((one) => one.difference_id),
        );
        expect(await run(files, ledgerOf(payments), shuffle, end, "apart")).toEqual(here);
      }),
      parameters,
    );
  }, 3_600_000);
});
