/** The server dies, and its callers die: what was acknowledged is there once, and what was not can be asked again. */
import { rmSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createProjectDatabase } from "../support/database.ts";
import { type PostgresServer, startPostgres } from "../support/postgres.ts";
import { expectSoundBooks, isFull, projectAt } from "./enforcement-support.ts";

let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: { fsync: "on", synchronous_commit: "on" } });
});
afterAll(async () => {
  await server.stop();
  rmSync(server.dataDir, { recursive: true, force: true });
});

const serverKills = isFull ? 10 : 2;
const clientKills = isFull ? 20 : 4;

it(`${serverKills} kills of the server and ${clientKills} of clients under load lose no acknowledged effect and double none`, async () => {
  const { url } = await createProjectDatabase(server.url(), { preset: "default" });
  const owner = projectAt(url, 2);
  for (let user = 0; user < 8; user += 1)
    await owner.pool.query("select public.update_user_token_balance($1, 5000000, 'purchase')", [
      await made(owner, user),
    ]);
  await owner.close();
  const authorized = new Set<string>();
  const settled = new Set<string>();
  const unknown: string[] = [];
  let calls = 0;

  async function work(until: Promise<void>): Promise<void> {
    let isOver = false;
    void until.then(() => {
      isOver = true;
    });
    await Promise.all(
      Array.from({ length: 16 }, async (_, worker) => {
        const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
        client.on("error", () => undefined);
        try {
          await client.connect();
          while (!isOver) {
            calls += 1;
            const id = `crash-${calls}`;
            unknown.push(id);
            await client.query("select public.authorize_usage($1, $2, 'gpt-4o-mini', 100)", [
              id,
              `user-${worker % 8}`,
            ]);
            authorized.add(id);
            // A client that dies: its connection is cut in the middle of whatever the server does for it.
            if (calls % 97 === 0 && worker < clientKills)
              (
                client as unknown as { connection: { stream: { destroy(): void } } }
              ).connection.stream.destroy();
            if (calls % 5 === 0) continue;
            await client.query("select public.settle_usage($1, 30, 20)", [id]);
            settled.add(id);
          }
        } catch {
          // The server or this client was killed: whatever was under way is unknown to its caller.
        } finally {
          await client.end().catch(() => undefined);
        }
      }),
    );
  }

  for (let kill = 0; kill < serverKills; kill += 1) {
    const over = new Promise<void>((resolve) => {
      setTimeout(() => void server.kill().then(resolve), 1500);
    });
    await work(over);
    await over;
    await server.restart();
  }

  const project = projectAt(url, 8);
  expect(settled.size).toBeGreaterThan(20);
  const { rows } = await project.pool.query<{ request_id: string; status: string }>(
    "select request_id, status from governance.requests",
  );
  const status = new Map(rows.map((row) => [row.request_id, row.status]));
  expect([...authorized].filter((id) => !status.has(id))).toEqual([]);
  expect([...settled].filter((id) => status.get(id) !== "settled")).toEqual([]);
  await expectSoundBooks(project);

  // What is not known is asked again with the same key: one effect, whatever had become of it.
  for (const id of unknown.filter((one) => !settled.has(one)).slice(0, 200)) {
    const user = await project.one<{ user_id: string } | undefined>(
      "select a.user_id from governance.requests r join governance.accounts a using (account_id) where r.request_id = $1",
      [id],
    );
    const again = await project.call("authorize_usage", id, user?.user_id ?? "user-0", "gpt-4o-mini", 100);
    expect(again["decision"]).toBe("allow");
    expect(await project.call("settle_usage", id, 30, 20)).toMatchObject({
      status: "settled",
      charged_tokens: 50,
    });
  }
  await expectSoundBooks(project);

  // Fresh holds are untouched by upkeep; stale ones are given back by it.
  await project.call("authorize_usage", "fresh", "user-0", "gpt-4o-mini", 100);
  await project.call("run_maintenance");
  expect(await project.one("select status from governance.requests where request_id = 'fresh'")).toEqual({
    status: "held",
  });
  await project.pool.query("select governance.set_test_clock(governance.now() + interval '1 hour')");
  await project.call("run_maintenance");
  expect(
    await project.one("select count(*)::int as held from governance.requests where status = 'held'"),
  ).toEqual({ held: 0 });
  await expectSoundBooks(project);
  await project.close();
});

async function made(project: { pool: pg.Pool }, user: number): Promise<string> {
  await project.pool.query("select public.upsert_account($1)", [`user-${user}`]);
  return `user-${user}`;
}
