import pg from "pg";
import { describe, expect, inject, it } from "vitest";
import { postgresDatabase } from "../../local-project/database.ts";
import { startSampleData } from "../../local-project/sample-data/index.ts";
import { makeStripeExports } from "../../local-project/sample-data/stripe-exports.ts";
import {
  DIFFERENCE_CLASSES,
  type LedgerRecord,
  type PackPrice,
  reconcile,
} from "../../shared/governance/reconciliation/index.ts";
import { createProjectDatabase } from "../support/database.ts";

describe("the sample's Stripe exports", () => {
  it("reconcile with the ledger but for one planted difference of every class", async () => {
    const { url, ownerUrl } = await createProjectDatabase(inject("postgresUrls")[18], { preset: "default" });
    const database = postgresDatabase(ownerUrl, { poolSize: 2 });
    const sql = new pg.Client({ connectionString: url });
    await sql.connect();
    try {
      const nowhere = { url: "http://127.0.0.1:1", serviceRoleKey: "none" };
      const sample = startSampleData(
        { ...nowhere, run: database.run },
        { users: 500, days: 45, callsPerSecond: 0 },
      );
      await sample.filled;
      expect(sample.status().problem).toBeNull();
      const { files, planted } = await makeStripeExports(database.run);
      expect(planted.map((one) => one.class).toSorted()).toEqual([...DIFFERENCE_CLASSES].toSorted());

      const call = async <Answer>(text: string, values: unknown[] = []): Promise<Answer> =>
        (await sql.query(`select ${text} as answer`, values)).rows[0].answer as Answer;
      const to = new Date(Date.now() + 60_000).toISOString();
      const from = new Date(Date.now() - 60 * 24 * 3_600_000).toISOString();
      const records: LedgerRecord[] = [];
      for (let cursor: string | null = null, more = true; more; ) {
        const page: { records: LedgerRecord[]; next_cursor: string; has_more: boolean } = await call(
          "public.console_ledger_purchases_since($1, 5000, $2, $3)",
          [cursor, from, to],
        );
        records.push(...page.records);
        cursor = page.next_cursor;
        more = page.has_more;
      }
      const result = await reconcile({
        stripeFiles: Object.entries(files).map(([name, content]) => ({
          name,
          size_bytes: null,
          chunks: (async function* () {
            yield new TextEncoder().encode(content);
          })(),
        })),
        ledger: (async function* () {
          yield records;
        })(),
        period: { from, to },
        options: { packs: await call<PackPrice[]>("public.console_pack_prices()") },
      });
      if (!result.ok) throw new Error(JSON.stringify(result.error));
      const found = result.value.differences.map((one) => ({
        class: one.class,
        about: one.stripe?.charge_id ?? one.ledger?.charge_id ?? one.stripe?.object_id ?? one.difference_id,
      }));
      const key = (one: { class: string; about: string }): string => `${one.class} ${one.about}`;
      const expected = planted.map((one) =>
        // These two are about a row of the balance, which names no charge that anybody knows.
        one.class === "ORPHAN" || one.class === "UNKNOWN_CATEGORY"
          ? { ...one, about: expect.any(String) }
          : one,
      );
      expect(found.toSorted((a, b) => (key(a) < key(b) ? -1 : 1))).toEqual(
        expected.toSorted((a, b) => (a.class < b.class ? -1 : 1)),
      );
      expect(result.value.matched_by_pass.reduce((sum, pass) => sum + pass.count, 0)).toBeGreaterThan(30);
      for (const line of result.value.bridge) expect(line.unexplained_minor, line.currency).toBe(0);
    } finally {
      await sql.end();
      await database.close();
    }
  });
});
