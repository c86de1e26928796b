/**
 * One `authorize_usage` through the local project's endpoint against the same call made in this process: what HTTP,
 * the token, the caller's role and JSON cost. On PGlite and, with many callers at once, on PostgreSQL.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import pg from "pg";
import { type LocalProject, startLocalProject } from "../local-project/index.ts";
import { createProjectDatabase } from "../tests/support/database.ts";
import { startPostgres } from "../tests/support/postgres.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

const CALLERS = 16;
const CALLS_A_ROUND = 400;
const ROUNDS = 5;
const ACCOUNTS = 200;
const SQL = "select public.authorize_usage($1, $2, $3, $4) as answer";

type Call = (requestId: string, userId: string) => Promise<unknown>;

let made = 0;

/** Calls a second, with this many callers at once, each on accounts in turn. */
async function throughput(call: Call): Promise<number> {
  const start = performance.now();
  let left = CALLS_A_ROUND;
  await Promise.all(
    Array.from({ length: CALLERS }, async () => {
      while (left-- > 0) {
        made += 1;
        await call(`bench-${made}`, `user-${made % ACCOUNTS}`);
      }
    }),
  );
  return CALLS_A_ROUND / ((performance.now() - start) / 1000);
}

function overHttp({ url, serviceRoleKey }: LocalProject, agent: Agent): Call {
  const address = new URL("/rest/v1/rpc/authorize_usage", url);
  const headers = {
    apikey: serviceRoleKey,
    authorization: `Bearer ${serviceRoleKey}`,
    "content-type": "application/json",
  };
  return (requestId, userId) =>
    new Promise((resolve, reject) => {
      const body = JSON.stringify({
        p_request_id: requestId,
        p_user_id: userId,
        p_model: "gpt-4o",
        p_estimated_tokens: 10,
      });
      const sent = request(address, {
        method: "POST",
        agent,
        headers: { ...headers, "content-length": body.length },
      });
      sent.on("response", (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => {
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${response.statusCode}: ${text}`));
        });
      });
      sent.on("error", reject);
      sent.end(body);
    });
}

async function compare(bench: string, project: LocalProject, inProcess: Call): Promise<BenchResult> {
  const agent = new Agent({ keepAlive: true, maxSockets: CALLERS });
  const endpoint = overHttp(project, agent);
  const { ours, floor, ratio } = await alternate(
    ROUNDS,
    () => throughput(endpoint),
    () => throughput(inProcess),
  );
  agent.destroy();
  return {
    bench,
    ratio: round(ratio),
    better: "higher",
    figures: {
      endpoint_calls_per_second: round(ours, 0),
      in_process_calls_per_second: round(floor, 0),
      callers: CALLERS,
    },
  };
}

async function onPglite(): Promise<BenchResult> {
  const folder = mkdtempSync(join(tmpdir(), "bench-endpoint-"));
  const [served, direct] = [join(folder, "served"), join(folder, "direct")];
  try {
    const first = await startLocalProject({ dataDir: direct });
    await first.stop();
    const project = await startLocalProject({ dataDir: served });
    const db = await PGlite.create({ dataDir: join(direct, "postgres"), extensions: { pg_trgm } });
    try {
      return await compare("rpc_endpoint_pglite", project, (requestId, userId) =>
        db.query(SQL, [requestId, userId, "gpt-4o", 10]),
      );
    } finally {
      await db.close();
      await project.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function onPostgres(): Promise<BenchResult> {
  const server = await startPostgres({ settings: { fsync: "on" } });
  try {
    const { url } = await createProjectDatabase(server.url(), { preset: "default" });
    const project = await startLocalProject({ databaseUrl: url, poolSize: CALLERS });
    const pool = new pg.Pool({ connectionString: url, max: CALLERS });
    try {
      return await compare("rpc_endpoint_postgres", project, (requestId, userId) =>
        pool.query({ name: "authorize", text: SQL, values: [requestId, userId, "gpt-4o", 10] }),
      );
    } finally {
      await pool.end();
      await project.stop();
    }
  } finally {
    await server.stop();
  }
}

export async function run(): Promise<readonly BenchResult[]> {
  return [await onPglite(), await onPostgres()];
}
