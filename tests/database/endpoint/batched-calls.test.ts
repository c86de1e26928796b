/** Calls that wait at the endpoint at the same time go to the database together, and none of them can tell. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();

interface Call {
  readonly name: string;
  /** As it stands in the body. */
  readonly text: string;
}

const call = (name: string, args: Record<string, unknown>): Call => ({ name, text: JSON.stringify(args) });

async function answerOf(
  project: LocalProject,
  { name, text }: Call,
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${project.url}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: { apikey: project.serviceRoleKey, "content-type": "application/json" },
    body: text,
  });
  return { status: response.status, body: await response.json() };
}

/** What differs from one database or moment to the next. */
const drawn = new Set(["decision_id", "transaction_id", "expires_at", "retry_after_seconds"]);
const compared = (answer: unknown): unknown =>
  JSON.parse(JSON.stringify(answer, (key, value: unknown) => (drawn.has(key) ? undefined : value)));

/** Values of another type than their parameter has: PostgREST reads some as what was meant, and refuses others. */
const oddlyTyped: readonly Record<string, unknown>[] = [
  { p_estimated_tokens: "many" },
  { p_estimated_tokens: "100" },
  { p_estimated_tokens: 1.5 },
  { p_estimated_tokens: true },
  { p_user_id: 12 },
  { p_user_id: { id: "u" } },
  { p_model: null },
  { p_complexity: "0.5" },
  { p_complexity: "high" },
  { p_message: ["hello"] },
];

/** Each for a user of its own, so that their order does not matter. */
function authorizations(): Call[] {
  return Array.from({ length: 90 }, (_, n): Call => {
    const args = {
      p_request_id: `r${n}`,
      p_user_id: `user-${n}`,
      p_model: "gpt-4o-mini",
      p_estimated_tokens: n % 9 === 1 ? 10_000_000 : 100,
      ...(n % 4 === 0 ? { p_message: `number ${n}\n"ä"` } : {}),
    };
    // Refused, each in its own way; and bodies that are not as JavaScript writes them.
    if (n % 9 === 2) return call("authorize_usage", { ...args, p_user_id: "" });
    if (n % 9 === 3) return call("authorize_usage", { ...args, ...oddlyTyped[(n - 3) / 9] });
    if (n % 9 === 4) return call("authorize_usage", { ...args, p_nonsense: 1 });
    if (n % 9 === 5) return call("authorize_usage", { ...args, p_message: "a\u0000b" });
    if (n % 9 === 6) return { name: "authorize_usage", text: JSON.stringify(args, null, 1) };
    if (n % 9 === 7) return call("authorize_usage", { p_request_id: `r${n}`, p_user_id: `user-${n}` });
    return call("authorize_usage", args);
  });
}

function settlements(): Call[] {
  return Array.from({ length: 90 }, (_, n): Call => {
    if (n % 10 === 9) return call("release_usage", { p_request_id: `r${n}`, p_reason: "failed" });
    const args = {
      p_request_id: n % 10 === 3 ? `unknown ${n}` : `r${n}`,
      p_input_tokens: 30,
      p_output_tokens: 20,
    };
    if (n % 10 === 5) return call("settle_usage", { ...args, p_input_tokens: n % 20 === 5 ? "30" : "few" });
    // A number that JavaScript would round.
    if (n % 10 === 4)
      return { name: "settle_usage", text: `${JSON.stringify(args).slice(0, -1)},"p_metadata":{"x":1.10}}` };
    return call("settle_usage", args);
  });
}

describe.each([
  { name: "PGlite", server: null },
  { name: "PostgreSQL 18", server: urls[18] },
])("the endpoint on $name", ({ server }) => {
  const folders: string[] = [];
  const start = async (batchesCalls: boolean): Promise<LocalProject> => {
    if (server !== null) {
      const { url } = await createProjectDatabase(server, { preset: "default" });
      return startLocalProject({ databaseUrl: url, batchesCalls, upkeepIntervalMs: null });
    }
    const dataDir = mkdtempSync(join(tmpdir(), "endpoint-batched-"));
    folders.push(dataDir);
    return startLocalProject({ dataDir, batchesCalls, upkeepIntervalMs: null });
  };
  let together: LocalProject;
  let alone: LocalProject;
  beforeAll(async () => {
    [together, alone] = await Promise.all([start(true), start(false)]);
  });
  afterAll(async () => {
    await Promise.all([together.stop(), alone.stop()]);
    for (const folder of folders) rmSync(folder, { recursive: true });
  });

  it("answers calls that wait together as it answers each alone; on a server they share transactions", async () => {
    for (const calls of [authorizations(), settlements(), settlements()]) {
      const answers = await Promise.all(calls.map((one) => answerOf(together, one)));
      for (const [n, one] of calls.entries())
        expect(compared(answers[n]), one.text).toEqual(compared(await answerOf(alone, one)));
    }
    const [row] = await together.run("select count(*), count(distinct xid::text) from governance.requests");
    const [made, transactions] = (row ?? []).map(Number);
    // Five of the oddly typed are read as what was meant.
    expect(made).toBe(45);
    // PGlite holds up the thread that would read the next call: there each is over before the next has come.
    if (server !== null) expect(transactions).toBeLessThan(40);
  });

  it("keeps a busy account's balance: of 100 calls at once, as many are held as it can pay", async () => {
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, n) =>
        answerOf(
          together,
          call("authorize_usage", {
            p_request_id: `hot-${n}`,
            p_user_id: "hot",
            p_model: "gpt-4o-mini",
            p_estimated_tokens: 1000,
          }),
        ),
      ),
    );
    const allowed = answers.filter(({ body }) => (body as { decision: string }).decision !== "block").length;
    const [row] = await together.run(
      "select reserved_tokens, subscription_tokens + purchased_tokens + promotional_tokens from governance.accounts where user_id = 'hot'",
    );
    const [reserved = 0, tokens = 0] = (row ?? []).map(Number);
    expect(reserved).toBe(allowed * 1000);
    expect(allowed).toBe(Math.min(100, Math.floor(tokens / 1000)));
  });
});
