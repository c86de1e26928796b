import pg from "pg";
import { describe, expect, it } from "vitest";
import { postgresDatabase } from "../../../local-project/database.ts";
import { startSampleData } from "../../../local-project/sample-data/index.ts";
import { makeStripeExports } from "../../../local-project/sample-data/stripe-exports.ts";
import {
  DIFFERENCE_CLASSES,
  type LedgerRecord,
  type PackPrice,
  type Report,
  reconcile,
  type RollForwardLine,
} from "../../../shared/governance/reconciliation/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

/** Rows of both sides by where they went: as many as there are. */
function countPlaces({ stripe_rows, ledger_rows }: Report): [number, number] {
  const places = [ledger_rows, stripe_rows].map(({ matched, in_differences, merged, duplicates, excluded }) =>
    Object.values(excluded).reduce((sum, rows) => sum + rows, matched + in_differences + merged + duplicates),
  );
  return places as [number, number];
}

const rowsOf = (exports: Readonly<Record<string, string>>): number =>
  Object.values(exports).reduce((sum, content) => sum + content.trimEnd().split("\n").length - 1, 0);

async function anyUser(sql: pg.Client): Promise<string> {
  const { rows } = await sql.query("select user_id from governance.accounts order by account_id limit 1");
  return rows[0].user_id as string;
}

/** The files as Stripe gives them once the second charge is refunded there, and the odd rows are cleared up. */
function settleAtStripe(files: Readonly<Record<string, string>>, report: Report): Record<string, string> {
  const of = (name: string): { file: string; row: number }[] =>
    report.differences.filter((one) => one.class === name).flatMap((one) => one.stripe?.rows ?? []);
  const settled = Object.entries(files).map(([file, content]) => {
    const lines = content.trimEnd().split("\n");
    const columns = (lines[0] ?? "").split(",");
    const change = (
      name: string,
      apply: (cells: string[], at: (column: string) => number) => string[] | null,
    ): void => {
      for (const { file: where, row } of of(name)) {
        if (where !== file) continue;
        const cells = (lines[row - 1] ?? "").split(",");
        const changed = apply(cells, (column) => columns.indexOf(column));
        if (changed) lines[row - 1] = changed.join(",");
      }
    };
    change("DUPLICATE_CHARGE", (cells, at) =>
      at("Amount Refunded") < 0 ? null : cells.with(at("Amount Refunded"), cells[at("Amount")] ?? ""),
    );
    change("FEE_VARIANCE", (cells, at) =>
      at("net") < 0
        ? null
        : cells.with(at("net"), (Number(cells[at("gross")]) - Number(cells[at("fee")])).toFixed(2)),
    );
    // Nothing to do with tokens, as Stripe says when it is asked.
    for (const name of ["ORPHAN", "UNKNOWN_CATEGORY"])
      change(name, (cells, at) =>
        at("reporting_category") < 0 ? null : cells.with(at("reporting_category"), "other_adjustment"),
      );
    return [file, `${lines.join("\n")}\n`];
  });
  return Object.fromEntries(settled);
}

describe("the sample's Stripe exports", () => {
  it("reconcile with the ledger but for one planted difference of every class, and tie out once all are put right", async () => {
    const { url, ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
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
      const prices = await call<PackPrice[]>("public.console_pack_prices()");
      const run = async (exports: Readonly<Record<string, string>>): Promise<Report> => {
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
          stripeFiles: Object.entries(exports).map(([name, content]) => ({
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
          options: {
            packs: prices,
            roll_forward: await call<RollForwardLine[]>("public.console_token_roll_forward($1, $2)", [
              from,
              to,
            ]),
          },
        });
        if (!result.ok) throw new Error(JSON.stringify(result.error));
        expect(countPlaces(result.value)).toEqual([records.length, rowsOf(exports)]);
        for (const line of result.value.bridge) expect(line.unexplained_minor, line.currency).toBe(0);
        return result.value;
      };
      const keep = (
        runId: string,
        { differences, ...head }: Report,
      ): Promise<{ kept: number; verified: number }> =>
        call("public.console_keep_reconciliation($1, 'fay', $2, $3)", [
          runId,
          JSON.stringify(head),
          JSON.stringify(differences),
        ]);

      const report = await run(files);
      const found = report.differences.map((one) => ({
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
      expect(report.matched_by_pass.reduce((sum, pass) => sum + pass.count, 0)).toBeGreaterThan(30);

      // People put right what can be put right in the books …
      await keep("sample-1", report);
      const booked = report.differences.filter((one) => one.correction.books);
      for (const one of booked) {
        // What no file tells, whoever proposes finds out: whose payment it was, and what was bought.
        const { user_id, tokens } = one.correction;
        const found =
          one.correction.action === "grant"
            ? { user_id: user_id ?? (await anyUser(sql)), tokens: tokens ?? 50_000 }
            : {};
        await call("public.console_case_action($1, $2, 'propose', 'fay', null, $3)", [
          `propose ${one.difference_id}`,
          [one.difference_id],
          JSON.stringify({ correction: found }),
        ]);
      }
      const ids = booked.map((one) => one.difference_id);
      await call("public.console_case_action('approve all', $1, 'approve', 'moe')", [ids]);
      for (const id of ids)
        expect(await call("public.console_post_correction($1, 'fay')", [id]), id).toMatchObject({
          status: "posted",
        });
      for (const proof of ["verify_ledger", "verify_purchases"])
        expect((await call<{ problems: unknown[] }>(`public.${proof}()`)).problems, proof).toEqual([]);

      // … and at Stripe what is a matter for Stripe: then the next run ties out.
      const again = await run(settleAtStripe(files, report));
      expect(again.differences.map((one) => one.class).toSorted()).toEqual([
        "FX_ROUNDING",
        "TEST_MODE_LEAK",
        "TIMING",
      ]);
      expect(again.tie_out.map((line) => line.unexplained_minor)).toEqual(again.tie_out.map(() => 0));
      expect(again.tied_out, JSON.stringify(again.roll_forward)).toBe(true);
      expect((await keep("sample-2", again)).verified).toBe(booked.length);
    } finally {
      await sql.end();
      await database.close();
    }
  });
});
