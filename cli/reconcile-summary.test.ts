import { describe, expect, it } from "vitest";
import { type LedgerRecord, reconcile } from "../shared/governance/reconciliation/index.ts";
import { summary } from "./reconcile-summary.ts";

const HEADER = "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,pack_id (metadata)";

async function printed(rows: readonly string[], ledger: readonly LedgerRecord[]): Promise<string> {
  const result = await reconcile({
    stripeFiles: [
      {
        name: "payments.csv",
        size_bytes: null,
        chunks: (async function* () {
          yield new TextEncoder().encode(`${[HEADER, ...rows].join("\n")}\n`);
        })(),
      },
    ],
    ledger: (async function* () {
      yield ledger;
    })(),
    period: { from: "2026-10-01", to: "2026-11-01" },
    options: {
      packs: [
        {
          pack_id: "pack_500k",
          tokens: 500_000,
          price_minor: 123_450,
          currency: "usd",
          valid_from: "2020-01-01",
        },
      ],
    },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return summary(result.value);
}

describe("what the command prints of a report", () => {
  it("is the tie-out line by line, the bridge to the ledger, and the differences with separators", async () => {
    expect(
      await printed(
        [
          "ch_A,2026-10-05 10:00:00,1234.50,0.00,usd,true,30.00,Paid,pack_500k",
          "ch_B,2026-10-06 10:00:00,1234.50,1234.50,usd,true,30.00,Refunded,pack_500k",
          "ch_C,2026-10-07 10:00:00,1234.50,0.00,usd,true,30.00,Paid,pack_500k",
        ],
        [
          {
            transaction_id: 1,
            record_type: "grant",
            user_id: "u1",
            tokens: 500_000,
            created_at: "2026-10-05T10:01:00Z",
            lot_id: 1,
            grant_kind: "purchase",
            amount_minor: 123_450,
            currency: "usd",
            charge_id: "ch_A",
          },
        ],
      ),
    ).toBe(`Period 2026-10-01 to 2026-10-31 (UTC): differences.
Stripe: 3 rows: 1 matched, 1 in differences, 1 set aside (refunded in full).
Ledger: 1 record: 1 matched.

Stripe's payments, USD
  Payments, gross   3,703.50 USD
  Refunds          -1,234.50 USD
  Stripe's fees       -90.00 USD
  Movement          2,379.00 USD

From Stripe to the ledger, USD
  Stripe, gross (2)             2,469.00 USD
  less: Paid, not granted (1)  -1,234.50 USD
  Ledger (1)                    1,234.50 USD
  Unexplained                       0.00 USD

Differences
  Paid, not granted (PAID_NOT_GRANTED): 1  1,234.50 USD, 500,000 tokens
`);
  });
});
