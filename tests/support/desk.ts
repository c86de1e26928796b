/** A project for the tests of the desk's functions, and ways to call them as the roles that do. */
import pg from "pg";
import { inject } from "vitest";
import { createProjectDatabase } from "./database.ts";

type Role = "service_role" | "authenticated" | "anon";

export interface Refusal {
  readonly code: string;
  readonly hint: string | undefined;
  readonly message: string;
}

export interface Desk {
  /** Superuser connection, for preparing and looking. */
  readonly sql: pg.Client;
  readonly ownerUrl: string;
  /** Calls as the service does, in a transaction of its own; throws what the database refuses with. */
  rpc<Answer>(name: string, parameters?: Record<string, unknown>): Promise<Answer>;
  rpcAs<Answer>(
    role: Role,
    userId: string | null,
    name: string,
    parameters?: Record<string, unknown>,
  ): Promise<Answer>;
  /** The error of a call that must be refused. */
  refusal(name: string, parameters?: Record<string, unknown>, role?: Role): Promise<Refusal>;
  /** Moves the project's clock; null gives the server's back. */
  setClock(at: string | null, isFrozen?: boolean): Promise<void>;
  one<Row>(text: string, values?: unknown[]): Promise<Row>;
  close(): Promise<void>;
}

/** As PostgREST hands parameters over: texts that the function's own types read. */
function asText(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** 18 always, and 15 where it is installed. */
export function installedVersions(): (15 | 18)[] {
  return inject("postgresUrls")[15] === null ? [18] : [18, 15];
}

export async function openDesk(version: 15 | 18, preset = "default"): Promise<Desk> {
  const server = inject("postgresUrls")[version];
  if (server === null) throw new Error(`PostgreSQL ${version} is not installed here.`);
  const { url, ownerUrl } = await createProjectDatabase(server, { preset });
  const sql = new pg.Client({ connectionString: url });
  const caller = new pg.Client({ connectionString: ownerUrl });
  await sql.connect();
  await caller.connect();

  async function rpcAs<Answer>(
    role: Role,
    userId: string | null,
    name: string,
    parameters: Record<string, unknown> = {},
  ): Promise<Answer> {
    const names = Object.keys(parameters);
    await caller.query("begin");
    try {
      await caller.query(`set local role ${role}`);
      const claims = JSON.stringify({ role, ...(userId === null ? {} : { sub: userId }) });
      await caller.query("select set_config('request.jwt.claims', $1, true)", [claims]);
      const { rows, fields } = await caller.query(
        `select * from public.${name}(${names.map((key, index) => `${key} => $${index + 1}`).join(", ")})`,
        names.map((key) => asText(parameters[key])),
      );
      await caller.query("commit");
      const isScalar = fields.length === 1 && fields[0]?.name === name;
      return (isScalar ? rows[0]?.[name] : rows) as Answer;
    } catch (error) {
      await caller.query("rollback");
      throw error;
    }
  }
  const rpc = <Answer>(name: string, parameters?: Record<string, unknown>) =>
    rpcAs<Answer>("service_role", null, name, parameters);

  return {
    sql,
    ownerUrl,
    rpc,
    rpcAs,
    async refusal(name, parameters, role = "service_role") {
      try {
        await rpcAs(role, null, name, parameters);
      } catch (error) {
        if (error instanceof pg.DatabaseError)
          return { code: error.code ?? "", hint: error.hint, message: error.message };
        throw error;
      }
      throw new Error(`${name} was not refused`);
    },
    async setClock(at, isFrozen = false) {
      await sql.query("select governance.set_test_clock($1, $2)", [at, isFrozen]);
    },
    async one<Row>(text: string, values: unknown[] = []) {
      return (await sql.query(text, values)).rows[0] as Row;
    },
    async close() {
      await caller.end();
      await sql.end();
    },
  };
}

let calls = 0;
/** One call, settled; answers its request id. */
export async function use(
  desk: Desk,
  userId: string,
  tokens: number,
  extra: Record<string, unknown> = {},
): Promise<string> {
  calls += 1;
  const requestId = `use-${calls}`;
  const answer = await desk.rpc<{ decision: string; reason: string | null }>("authorize_usage", {
    p_request_id: requestId,
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: tokens,
    ...extra,
  });
  if (answer.decision === "block") throw new Error(`${userId} was blocked: ${answer.reason}`);
  await desk.rpc("settle_usage", {
    p_request_id: requestId,
    p_input_tokens: tokens - Math.floor(tokens / 3),
    p_output_tokens: Math.floor(tokens / 3),
  });
  return requestId;
}
