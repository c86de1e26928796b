/** Calls of the enforcement functions over many connections, and what must hold after any of them. */
import pg from "pg";
import { expect, inject } from "vitest";
import { createProjectDatabase } from "./database.ts";

/** What a function answers; or, where it refused, `refused` (SQLSTATE), `hint` and `message`. */
export type Answer = Readonly<Record<string, unknown>>;

export interface Project {
  readonly url: string;
  readonly pool: pg.Pool;
  /** Answers, or tells how it was refused; throws where a call fails in any way that is not ours. */
  call(name: string, ...parameters: readonly unknown[]): Promise<Answer>;
  one<Row>(text: string, values?: readonly unknown[]): Promise<Row>;
  close(): Promise<void>;
}

export async function openProject(
  version: 15 | 18,
  connections: number,
  preset = "default",
): Promise<Project> {
  const server = inject("postgresUrls")[version];
  if (server === null) throw new Error(`PostgreSQL ${version} is not installed here.`);
  const { url } = await createProjectDatabase(server, { preset });
  return projectAt(url, connections);
}

export function projectAt(url: string, connections: number): Project {
  const pool = new pg.Pool({ connectionString: url, max: connections });
  pool.on("error", () => undefined);
  return {
    url,
    pool,
    async call(name, ...parameters) {
      // Not the pool's own `query`: it throws a connection away with every refusal, and the next call pays for a new one.
      const client = await pool.connect();
      let isSound = false;
      try {
        const places = parameters.map((_, index) => `$${index + 1}`).join(", ");
        const { rows } = await client.query<{ answer: Answer }>(
          `select to_jsonb(public.${name}(${places})) as answer`,
          parameters as unknown[],
        );
        isSound = true;
        return rows[0]?.answer ?? {};
      } catch (error) {
        if (!(error instanceof pg.DatabaseError && error.code?.startsWith("PT4"))) throw error;
        isSound = true;
        return { refused: error.code, hint: error.hint, message: error.message };
      } finally {
        client.release(!isSound);
      }
    },
    async one<Row>(text: string, values: readonly unknown[] = []) {
      return (await pool.query(text, values as unknown[])).rows[0] as Row;
    },
    async close() {
      await pool.end();
    },
  };
}

/** The books are right: the proof is clean, nothing is negative, and each hold ended at most once. */
export async function expectSoundBooks(project: Project): Promise<void> {
  expect((await project.call("verify_ledger"))["problems"]).toEqual([]);
  const sums = await project.one<Record<string, string>>(`
    select (select coalesce(sum(remaining), 0) from governance.lots) as lots,
      (select coalesce(sum(amount), 0) from governance.token_transactions) as ledger,
      (select coalesce(sum(subscription_tokens + purchased_tokens + promotional_tokens), 0) from governance.accounts) as accounts,
      (select coalesce(sum(reserved_tokens), 0) from governance.accounts) as reserved,
      (select coalesce(sum(reserved_tokens), 0) from governance.requests where status = 'held') as held,
      (select count(*) from governance.accounts where least(subscription_tokens, purchased_tokens, promotional_tokens, reserved_tokens, debt_tokens,
        subscription_tokens + purchased_tokens + promotional_tokens - reserved_tokens) < 0) as negative,
      (select count(*) from governance.requests r where (r.status = 'settled') <>
        ((select count(*) from governance.token_transactions t where t.decision_id = r.decision_id and t.transaction_type = 'usage') = 1)) as unmatched,
      (select count(*) from (select decision_id from governance.token_transactions where transaction_type = 'usage' and decision_id is not null group by 1 having count(*) > 1) x) as twice,
      (select count(*) from (select decision_id from governance.hold_events where kind <> 'quarantined' group by 1 having count(*) > 1) x) as ended_twice,
      (select coalesce(sum(charged_tokens), 0) from governance.requests where status = 'settled') as charged,
      (select coalesce(sum(charged_tokens), 0) from governance.usage_daily) as rolled_up`);
  expect(sums["lots"]).toBe(sums["ledger"]);
  expect(sums["accounts"]).toBe(sums["ledger"]);
  expect(sums["reserved"]).toBe(sums["held"]);
  expect(sums["charged"]).toBe(sums["rolled_up"]);
  expect([sums["negative"], sums["unmatched"], sums["twice"], sums["ended_twice"]]).toEqual([
    "0",
    "0",
    "0",
    "0",
  ]);
}

/** A generator of its own: the same seed gives the same run. */
export function dice(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 13), 0x297a2d39);
    mixed ^= mixed >>> 16;
    return (mixed >>> 0) / 2 ** 32;
  };
}
