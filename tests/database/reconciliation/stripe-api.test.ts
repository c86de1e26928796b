/**
 * The sample's payments told by Stripe's API and by Stripe's exports: the same report, whichever way they came. The
 * API is the real SDK against a server that answers as Stripe does; the ledger is a real PostgreSQL.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  openStripeCache,
  stripeAccountRecords,
} from "../../../electron/main/console/finance/stripe-source-cache.ts";
import { lookBackSeconds, readStripe } from "../../../electron/main/console/finance/stripe-source.ts";
import { postgresDatabase } from "../../../local-project/database.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { startSampleData } from "../../../local-project/sample-data/index.ts";
import { makeStripeExports, type StripeExports } from "../../../local-project/sample-data/stripe-exports.ts";
import {
  type Difference,
  DIFFERENCE_CLASSES,
  type InputFile,
  type LedgerRecord,
  type PackPrice,
  reconcile,
  type Report,
  stripeApiFiles,
} from "../../../shared/governance/reconciliation/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { accountOfExports, type StripeShape } from "../../support/stripe/objects.ts";
import { type StripeAccount, startStripeServer } from "../../support/stripe/server.ts";
import { postgresUrls } from "../../support/project.ts";
import { repository } from "../../support/repository.ts";

const key = `rk_live_${"a1B2".repeat(8)}`;
const day = 86_400_000;

describe("Stripe's API and Stripe's exports", () => {
  const folder = mkdtempSync(join(tmpdir(), "reconcile-api-"));
  let database: ReturnType<typeof postgresDatabase>;
  let sql: pg.Client;
  let project: LocalProject;
  let exports: StripeExports;
  let records: LedgerRecord[] = [];
  let packs: PackPrice[];
  let from: string;
  let to: string;
  /** Until when both are taken as complete: just before the grant whose payment neither tells of. */
  let through: string;

  beforeAll(async () => {
    const made = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
    database = postgresDatabase(made.ownerUrl, { poolSize: 2 });
    sql = new pg.Client({ connectionString: made.url });
    await sql.connect();
    project = await startLocalProject({
      dataDir: join(folder, "project"),
      databaseUrl: made.ownerUrl,
      port: 0,
    });
    const nowhere = { url: "http://127.0.0.1:1", serviceRoleKey: "none" };
    const sample = startSampleData(
      { ...nowhere, run: database.run },
      { users: 500, days: 45, callsPerSecond: 0 },
    );
    await sample.filled;
    exports = await makeStripeExports(database.run);
    const call = async <Answer>(text: string, values: unknown[] = []): Promise<Answer> =>
      (await sql.query(`select ${text} as answer`, values)).rows[0].answer as Answer;
    from = `${new Date(Date.now() - 60 * day).toISOString().slice(0, 10)}T00:00:00Z`;
    to = new Date(Date.now() + 60_000).toISOString();
    for (let cursor: string | null = null, more = true; more; ) {
      const page: { records: LedgerRecord[]; next_cursor: string; has_more: boolean } = await call(
        "public.console_ledger_purchases_since($1, 5000, $2, $3)",
        [cursor, from, to],
      );
      records = [...records, ...page.records];
      cursor = page.next_cursor;
      more = page.has_more;
    }
    packs = await call<PackPrice[]>("public.console_pack_prices()");
    const late = exports.planted.find((one) => one.class === "TIMING")?.about;
    const granted = records.find((one) => one.charge_id === late && one.record_type === "grant");
    through = new Date(Date.parse(granted?.created_at ?? "") - 1_000).toISOString();
  });
  afterAll(async () => {
    await project.stop();
    await sql.end();
    await database.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const run = async (stripeFiles: InputFile[], accountId?: string): Promise<Report> => {
    const result = await reconcile({
      stripeFiles,
      ledger: (async function* () {
        yield records;
      })(),
      period: { from, to },
      options: {
        packs,
        data_through: through,
        ...(accountId ? { account_id: accountId } : {}),
      },
    });
    if (!result.ok) throw new Error(JSON.stringify(result.error));
    return result.value;
  };
  const byFiles = (): Promise<Report> =>
    run(
      Object.entries(exports.files).map(([name, content]) => ({
        name,
        size_bytes: null,
        chunks: (async function* () {
          yield new TextEncoder().encode(content);
        })(),
      })),
    );
  const byApi = async (shape: StripeShape): Promise<Report> => {
    const account = accountOfExports(exports.files, shape);
    const server = await startStripeServer({ [key]: { account } });
    const cache = openStripeCache(join(folder, `${shape}.sqlite`));
    try {
      const since = Date.parse(from) / 1000 - lookBackSeconds;
      const read = await readStripe({
        key,
        endpoint: server.endpoint,
        cache,
        account_id: account.id,
        from: since,
        now: () => new Date(),
      });
      if (!read.ok) throw new Error(JSON.stringify(read.error));
      return await run(
        stripeApiFiles(stripeAccountRecords(cache, { account_id: account.id, livemode: true }, since)),
        account.id,
      );
    } finally {
      cache.close();
      await server.stop();
    }
  };

  /** A difference but for where its rows stood and which ids were tried. */
  const facts = ({ trail: _trail, stripe, explanation: _words, ...rest }: Difference): unknown => {
    const {
      rows: _rows,
      checkout_session_id: _session,
      ...side
    } = stripe ?? { rows: [], checkout_session_id: null };
    return { ...rest, stripe: stripe && side };
  };

  it.each(["before_basil", "since_basil"] as const)(
    "give the same differences, tie-out and bridge to the minor unit, with objects of the shape %s",
    async (shape) => {
      const files = await byFiles();
      const api = await byApi(shape);
      expect(files.classes.map((one) => one.class).toSorted()).toEqual(DIFFERENCE_CLASSES.toSorted());
      expect(api.differences.map(facts)).toEqual(files.differences.map(facts));
      expect(api.tie_out).toEqual(files.tie_out);
      expect(api.bridge).toEqual(files.bridge);
      expect(api.classes).toEqual(files.classes);
      expect(api.roll_forward).toEqual(files.roll_forward);
      expect(api.deferred_revenue).toEqual(files.deferred_revenue);
      expect(api.ledger_rows).toEqual(files.ledger_rows);
      expect(api.inputs.flatMap((input) => [...input.missing_columns, ...input.unknown_columns])).toEqual([]);
      expect(api.warnings.map(({ code }) => code)).toEqual(files.warnings.map(({ code }) => code));
      for (const line of api.bridge) expect(line.unexplained_minor, line.currency).toBe(0);
    },
  );

  describe("npm run reconcile -- --stripe-api", () => {
    const lacking = `rk_live_${"c3D4".repeat(8)}`;
    let server: Awaited<ReturnType<typeof startStripeServer>>;
    let account: StripeAccount;
    beforeAll(async () => {
      account = accountOfExports(exports.files, "since_basil");
      server = await startStripeServer({
        [key]: { account },
        [lacking]: { account, lacks: ["rak_invoice_read"] },
      });
    });
    afterAll(async () => {
      await server.stop();
    });

    const command = async (
      args: readonly string[],
      stripeKey: string | null = key,
    ): Promise<{ code: number; out: string; err: string }> => {
      const { STRIPE_API_KEY: _key, ...env } = process.env;
      return await new Promise((resolve) => {
        execFile(
          process.execPath,
          [join(repository, "cli/reconcile.ts"), "--stripe-api", "--url", project.url, ...args],
          {
            cwd: folder,
            env: {
              ...env,
              GOVERNANCE_SERVICE_ROLE_KEY: project.serviceRoleKey,
              STRIPE_API_BASE: `http://127.0.0.1:${server.endpoint.port}`,
              ...(stripeKey === null ? {} : { STRIPE_API_KEY: stripeKey }),
            },
          },
          (error, out, err) => resolve({ code: error ? Number(error.code) : 0, out, err }),
        );
      });
    };
    const days = (): string[] => ["--from", from.slice(0, 10), "--to", to.slice(0, 10)];

    it("finds what the exports tell, and reads only what is new the next night", async () => {
      const args = [...days(), "--cache", "kept", "--out", "api"];
      const newestFrom = Date.now() / 1000 - 300;
      const first = await command(args);
      expect(first.code, first.err + first.out).toBe(1);
      expect(first.out).toMatch(/live mode: \d{3,} objects read in \d+ requests/);
      const report = JSON.parse(readFileSync(join(folder, "api/report.json"), "utf8")) as Report;
      const files = await byFiles();
      const ids = (of: Report): string[] =>
        // The one grant whose payment nobody tells of is late for the files, and without one for an account read today.
        of.differences
          .map((one) => one.difference_id)
          .filter((id) => !/^(?:TIMING|GRANTED_NOT_PAID)/.test(id));
      expect(ids(report)).toEqual(ids(files));
      expect(report.warnings.map(({ code }) => code)).toEqual([]);

      server.requests.length = 0;
      const second = await command(args);
      expect(second.code).toBe(1);
      // What Stripe has not finished with is asked for again: as many disputes as happen to be open.
      const open = exports.files["disputes.csv"]?.match(/,needs_response,/g)?.length ?? 0;
      expect(open).toBeGreaterThan(0);
      // So are the newest, which a list may have shown late; nothing else is.
      const newest = Object.values(account.lists)
        .flat()
        .filter(({ created }) => Number(created) >= newestFrom);
      const again = Number(/: (\d+) objects read/.exec(second.out)?.[1]);
      expect(again).toBeGreaterThanOrEqual(open);
      expect(again).toBeLessThanOrEqual(open + newest.length);
      const cached = readdirSync(join(folder, "kept"), { recursive: true, encoding: "utf8" });
      const [path] = cached.filter((name) => name.endsWith(`${account.id}-live.sqlite`));
      expect(readFileSync(join(folder, "kept", path ?? "")).includes(key)).toBe(false);
      expect(first.out + first.err + second.out + second.err).not.toContain(key);
    });

    it.each([
      ["no key", () => days(), null, /set STRIPE_API_KEY/],
      ["a secret key", () => days(), `sk_live_${"x".repeat(30)}`, /it may move money/],
      ["a key that lacks a permission", () => days(), lacking, /"Invoices": in Stripe's dashboard/],
      ["an unknown key", () => days(), `rk_live_${"z".repeat(32)}`, /Stripe does not know this key/],
      ["an open period", () => ["--from", from.slice(0, 10)], key, /needs --from and --to/],
      ["another account", () => [...days(), "--account", "acct_other"], key, /--account says acct_other/],
    ])("ends with 2 for %s, in words", async (_name, args, stripeKey, message) => {
      const { code, err } = await command([...args(), "--cache", "none"], stripeKey);
      expect(err).toMatch(message);
      expect(code).toBe(2);
      if (stripeKey) expect(err).not.toContain(stripeKey);
    });
  });
});
