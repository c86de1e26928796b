import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { WebSocket } from "ws";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();
const databases = [
  { name: "PGlite", server: null },
  { name: "PostgreSQL 18", server: urls[18] },
  ...(urls[15] ? [{ name: "PostgreSQL 15", server: urls[15] }] : []),
];

interface Decision {
  readonly decision: string;
  readonly reason: string | null;
  readonly http_status: number;
}

describe.each(databases)("a product's backend on $name, through plain supabase-js", ({ server }) => {
  let project: LocalProject;
  let dataDir: string;
  let client: SupabaseClient;
  let sent = 0;

  const authorize = async (message: string): Promise<Decision> => {
    const { data, error } = await client.rpc("authorize_usage", {
      p_request_id: `request-${sent++}`,
      p_user_id: "ada",
      p_model: "gpt-4o",
      p_estimated_tokens: 10,
      p_message: message,
    });
    expect(error).toBeNull();
    return data as Decision;
  };

  beforeAll(async () => {
    dataDir = mkdtempSync(join(tmpdir(), "endpoint-product-"));
    const databaseUrl =
      server === null ? null : (await createProjectDatabase(server, { preset: "default" })).url;
    project = await startLocalProject(databaseUrl === null ? { dataDir } : { databaseUrl });
    client = createClient(project.url, project.serviceRoleKey, {
      auth: { persistSession: false, autoRefreshToken: false },
      realtime: { transport: WebSocket as never },
    });
  });
  afterAll(async () => {
    await client.removeAllChannels();
    await project.stop();
    rmSync(dataDir, { recursive: true });
  });

  it("is stopped for the same message over and over, blocked by an operator, and let in again", async () => {
    const beats: unknown[] = [];
    const systems: { status: string }[] = [];
    client
      .channel("wake-ups")
      .on("postgres_changes", { event: "*", schema: "governance", table: "signals" }, (change) =>
        beats.push(change.new),
      )
      .on("system", {}, (message: { status: string }) => systems.push(message))
      .subscribe();
    await vi.waitFor(() => expect(systems).toMatchObject([{ status: "ok" }]), 60_000);

    const decisions: Decision[] = [];
    for (let call = 0; call < 15; call++) decisions.push(await authorize("the very same words"));
    expect(decisions[0]).toMatchObject({ decision: "allow" });
    expect(decisions.at(-1)).toMatchObject({ decision: "block", reason: "spam_identical" });
    await vi.waitFor(() => expect(beats).toContainEqual(expect.objectContaining({ topic: "feed" })), 60_000);
    const { data: feed } = await client.rpc("usage_events_since");
    expect(JSON.stringify(feed)).toContain("spam_identical");

    const command = { p_user_id: "ada", p_reason: "test", p_operator: "op" };
    const blocked = await client.rpc("block_user", { p_command_id: "c1", p_until: null, ...command });
    expect(blocked.error).toBeNull();
    expect(await authorize("something else")).toMatchObject({
      decision: "block",
      reason: "user_blocked",
      http_status: 403,
    });
    expect((await client.rpc("unblock_user", { p_command_id: "c2", ...command })).error).toBeNull();
  });

  it("keeps the functions of the service from everybody else", async () => {
    const anon = createClient(project.url, project.anonKey, { auth: { persistSession: false } });
    const { error, status } = await anon.rpc("get_user_token_balance", { p_user_id: "ada" });
    expect({ code: error?.code, status }).toEqual({ code: "42501", status: 401 });
  });

  it("settles a hundred calls made at once, and the ledger ties out", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const p_request_id = `crowd-${index}`;
        const p_user_id = `crowd-user-${index % 7}`;
        await client.rpc("authorize_usage", {
          p_request_id,
          p_user_id,
          p_model: "gpt-4o",
          p_estimated_tokens: 20,
        });
        const { data, error } = await client.rpc("settle_usage", {
          p_request_id,
          p_input_tokens: 5,
          p_output_tokens: 6,
        });
        return error?.message ?? (data as { status: string }).status;
      }),
    );
    expect(new Set(outcomes)).toEqual(new Set(["settled"]));
    const { data } = await client.rpc("verify_ledger");
    expect(data).toMatchObject({ problems: [] });
  });
});
