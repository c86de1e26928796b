import { expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import type { LedgerRecord } from "../governance/reconciliation/types.ts";
import { ledgerRecord } from "./ledger-records.ts";

const record = {
  transaction_id: 17,
  record_type: "grant",
  user_id: "ann",
  tokens: 1_000,
  created_at: "2026-03-01T10:00:00Z",
  grant_kind: "purchase",
  amount_minor: 1_200,
  currency: "usd",
  charge_id: "ch_1",
  invoice_id: null,
  livemode: true,
  of_a_newer_project: [1],
};

test("a record of the ledger passes as it is, with keys that are not known yet", () => {
  expect(ledgerRecord.parse(record)).toEqual(record);
  expectTypeOf<z.output<typeof ledgerRecord>>().toExtend<LedgerRecord>();
});

test.each([
  ["tokens", 1.5],
  ["tokens", "1000"],
  ["tokens", undefined],
  ["transaction_id", null],
  ["record_type", "gift"],
  ["amount_minor", 2 ** 53],
  ["charge_id", 17],
  ["livemode", "true"],
])("%s: %j is refused, by its place", (field, value) => {
  const { error } = z.array(ledgerRecord).safeParse([record, { ...record, [field]: value }]);
  expect(error?.issues.map(({ path }) => path)).toEqual([[1, field]]);
});
