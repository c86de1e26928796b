/** The one handle to a project in the tests: a database with the product installed, and ways to call it and look at it. */
import pg from "pg";
import { expect, inject } from "vitest";
import { createProjectDatabase } from "./database.ts";

type Version = 15 | 18;
type Role = "service_role" | "authenticated" | "anon";

interface Refusal {
  readonly code: string;
  readonly hint: string | undefined;
  readonly message: string;
  readonly details: string | null;
}

/** What a function answers; or, where it refused, `refused` (SQLSTATE), `hint` and `message`. */
export type Answer = Readonly<Record<string, unknown>>;

export interface Project {
  /** As superuser, and as the one who owns what the migrations made. */
  readonly url: string;
  readonly ownerUrl: string;
  /** Superuser's connections, for preparing and looking. */
  readonly sql: pg.Pool;
  /** Calls by named parameters, as the service does, in a transaction of its own; throws what the database refuses with. */
  rpc<T>(name: string, parameters?: Record<string, unknown>): Promise<T>;
  /** The same as another role; `userId` is the token's `sub`. */
  rpcAs<T>(role: Role, userId: string | null, name: string, parameters?: Record<string, unknown>): Promise<T>;
  /** The error of a call that must be refused. */
  refusal(name: string, parameters?: Record<string, unknown>, role?: Role): Promise<Refusal>;
  /** Calls by position, over as many connections as there are; a refusal is an answer. For many calls at once. */
  call(name: string, ...parameters: readonly unknown[]): Promise<Answer>;
  one<Row>(text: string, values?: readonly unknown[]): Promise<Row>;
  /** Moves the project's clock; null gives the server's back. */
  setClock(at: string | null, isFrozen?: boolean): Promise<void>;
  close(): Promise<void>;
}

/** Superuser URLs of this worker's servers by major version; 15 is null where it is not installed. */
export function postgresUrls(): { readonly 15: string | null; readonly 18: string } {
  const worker = Number(process.env["VITEST_POOL_ID"]);
  const servers = inject("serversOfWorkers");
  return { 15: servers[15]?.[worker - 1] ?? null, 18: servers[18][worker - 1] as string };
}

/** 18 always, and 15 where it is installed. */
export function installedVersions(): Version[] {
  return postgresUrls()[15] === null ? [18] : [18, 15];
}

interface ProjectOptions {
  readonly preset?: string;
  /** How many calls `call` makes at once. */
  readonly connections?: number;
}

/** A project of its own on an installed server. */
export async function openProject(version: Version, options: ProjectOptions = {}): Promise<Project> {
  const server = postgresUrls()[version];
  if (server === null) throw new Error(`PostgreSQL ${version} is not installed here.`);
  const { url, ownerUrl } = await createProjectDatabase(server, { preset: options.preset ?? "default" });
  return projectAt(url, { ownerUrl, ...options });
}

/** The handle to a project that is there already. */
export function projectAt(
  url: string,
  { ownerUrl = url, connections = 1 }: { readonly ownerUrl?: string; readonly connections?: number } = {},
): Project {
  const sql = new pg.Pool({ connectionString: url, max: connections });
  const callers = new pg.Pool({ connectionString: ownerUrl, max: 1 });
  for (const pool of [sql, callers]) pool.on("error", () => undefined);

  async function rpcAs<T>(
    role: Role,
    userId: string | null,
    name: string,
    parameters: Record<string, unknown> = {},
  ): Promise<T> {
    const names = Object.keys(parameters);
    const caller = await callers.connect();
    try {
      await caller.query("begin");
      await caller.query(`set local role ${role}`);
      const claims = JSON.stringify({ role, ...(userId === null ? {} : { sub: userId }) });
      await caller.query("select set_config('request.jwt.claims', $1, true)", [claims]);
      const { rows, fields } = await caller.query(
        `select * from public.${name}(${names.map((key, index) => `${key} => $${index + 1}`).join(", ")})`,
        names.map((key) => asText(parameters[key])),
      );
      await caller.query("commit");
      const isScalar = fields.length === 1 && fields[0]?.name === name;
      return (isScalar ? rows[0]?.[name] : rows) as T;
    } catch (error) {
      await caller.query("rollback");
      throw error;
    } finally {
      caller.release();
    }
  }

  return {
    url,
    ownerUrl,
    sql,
    rpcAs,
    rpc: (name, parameters) => rpcAs("service_role", null, name, parameters),
    async refusal(name, parameters, role = "service_role") {
      try {
        await rpcAs(role, null, name, parameters);
      } catch (error) {
        if (error instanceof pg.DatabaseError)
          return {
            code: error.code ?? "",
            hint: error.hint,
            message: error.message,
            details: error.detail ?? null,
          };
        throw error;
      }
      throw new Error(`${name} was not refused`);
    },
    async call(name, ...parameters) {
      // Not the pool's own `query`: it throws a connection away with every refusal, and the next call pays for a new one.
      const client = await sql.connect();
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
      return (await sql.query(text, values as unknown[])).rows[0] as Row;
    },
    async setClock(at, isFrozen = false) {
      await sql.query("select governance.set_test_clock($1, $2)", [at, isFrozen]);
    },
    async close() {
      await Promise.all([sql.end(), callers.end()]);
    },
  };
}

/** As PostgREST hands parameters over: texts that the function's own types read. */
function asText(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  return typeof value === "string" ? value : JSON.stringify(value);
}

let calls = 0;
/** One call, settled; answers its request id. */
export async function use(
  project: Project,
  userId: string,
  tokens: number,
  extra: Record<string, unknown> = {},
): Promise<string> {
  calls += 1;
  const requestId = `use-${calls}`;
  const answer = await project.rpc<{ decision: string; reason: string | null }>("authorize_usage", {
    p_request_id: requestId,
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: tokens,
    ...extra,
  });
  if (answer.decision === "block") throw new Error(`${userId} was blocked: ${answer.reason}`);
  await project.rpc("settle_usage", {
    p_request_id: requestId,
    p_input_tokens: tokens - Math.floor(tokens / 3),
    p_output_tokens: Math.floor(tokens / 3),
  });
  return requestId;
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
