/** The console's core on a real PostgreSQL behind the local project: the operator's first job, with many connections. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Console } from "../../../electron/main/console/console.ts";
import { createConsole } from "../../../electron/main/console/consoles.ts";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { readMigrations } from "../../../local-project/migrations.ts";
import type {
  AccountState,
  ConnectionState,
  Overview,
  Reply,
  UsageEvent,
} from "../../../shared/contract/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { shortestOfFive } from "../../support/console-calls.ts";
import { postgresUrls } from "../../support/project.ts";

const folder = mkdtempSync(join(tmpdir(), "console-pg-"));
let project: LocalProject;
let backend: SupabaseClient;
let console_: Console;
const seen: UsageEvent[] = [];

async function value<T>(name: string, input: object): Promise<T> {
  const result = (await console_.dispatcher.call(name, input)) as Reply<T>;
  if (!result.ok) throw new Error(`${name}: ${result.error.message} ${result.error.details}`);
  return result.value;
}

beforeAll(async () => {
  const { ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  project = await startLocalProject({ databaseUrl: ownerUrl, poolSize: 20 });
  backend = createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } });
  const opened = createConsole({
    dataDir: join(folder, "data"),
    host: "browser",
    version: "0",
    migrations: readMigrations().map(({ version, name }) => `${version}_${name}`),
    startLocalProject: null,
    log: () => {},
    openKeychain: async () => ({
      kind: "none",
      note: "none here",
      get: async () => null,
      set: async () => false,
      remove: async () => {},
    }),
  });
  if (!opened.ok) throw new Error(opened.error.message);
  console_ = opened.value;
  console_.start();
  await value("connection.add", {
    name: "PostgreSQL",
    url: project.url,
    key: project.serviceRoleKey,
    is_production: true,
  });
  await vi.waitFor(
    async () => expect((await value<ConnectionState>("connection.state", {})).status).toBe("live"),
    { timeout: 60_000 },
  );
  console_.dispatcher.follow("feed", { filter: {}, after_event_id: null }, (item) => {
    seen.push(...(item as { events: UsageEvent[] }).events);
  });
});
afterAll(async () => {
  await console_?.close();
  await project?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const authorize = async (userId: string, message: string) => {
  const { data, error } = await backend.rpc("authorize_usage", {
    p_request_id: randomUUID(),
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: 10,
    p_message: message,
  });
  expect(error).toBeNull();
  return data as { decision: string; reason: string | null; http_status: number };
};

test("a spammer is stopped, seen within a second, blocked by the operator and let go again", async () => {
  let user = "";
  const seenAfterMs = await shortestOfFive(1_500, async () => {
    user = `spammer-${randomUUID()}`;
    await backend.rpc("upsert_account", { p_user_id: user });
    let last = await authorize(user, "buy now");
    for (let n = 1; n < 15; n++) last = await authorize(user, "buy now");
    const stoppedAt = Date.now();
    expect(last).toMatchObject({ decision: "block", reason: "spam_identical" });
    await expect
      .poll(() => seen.some((one) => one.user_id === user && one.reason === "spam_identical"), {
        interval: 20,
      })
      .toBe(true);
    return Date.now() - stoppedAt;
  });
  expect(seenAfterMs).toBeLessThan(1_500);
  const blocked = await value<{ account: AccountState }>("users.block", {
    command_id: randomUUID(),
    user_id: user,
    reason: "spamming",
    until: null,
  });
  expect(blocked.account.is_blocked).toBe(true);
  expect(await authorize(user, "hello")).toMatchObject({ reason: "user_blocked", http_status: 403 });
  await value("users.unblock", { command_id: randomUUID(), user_id: user, reason: "forgiven" });
  expect(await authorize(user, "hello again")).toMatchObject({ decision: "allow" });
});

test("of 32 callers at once every event reaches the feed once, whatever order they commit in", async () => {
  const before = seen.length;
  const users = Array.from({ length: 8 }, (_, index) => `caller-${index}`);
  for (const user of users) await backend.rpc("upsert_account", { p_user_id: user });
  let calls = 0;
  await Promise.all(
    Array.from({ length: 32 }, async (_, caller) => {
      for (let n = 0; n < 10; n++) {
        const user = users[(caller + n) % users.length] ?? "";
        const { error } = await backend.rpc("authorize_usage", {
          p_request_id: randomUUID(),
          p_user_id: user,
          p_model: "gpt-4o-mini",
          p_estimated_tokens: 10,
        });
        expect(error).toBeNull();
        calls++;
      }
    }),
  );
  const mine = () => seen.slice(before).filter(({ user_id }) => user_id.startsWith("caller-"));
  await expect.poll(() => mine().length, { timeout: 60_000 }).toBe(calls);
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  expect(new Set(mine().map(({ event_id }) => event_id)).size).toBe(calls);
  expect(mine()).toHaveLength(calls);
  expect(
    (await value<Overview>("watch.overview", { minutes: 30, filter: {}, stretch: null })).calls,
  ).toBeGreaterThanOrEqual(calls);
});
