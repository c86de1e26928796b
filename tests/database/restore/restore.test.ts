/**
 * A dump loaded into a fresh project, as docs/guides/backup.md says: no door is open although pg_dump writes no revoke,
 * the books verify, and a reader's kept cursor neither loses an event nor takes an old one for a new one.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { dump, findDumpPrograms, restore } from "../../support/dump.ts";
import { openProject, postgresUrls, type Project } from "../../support/project.ts";

const folder = mkdtempSync(join(tmpdir(), "governance-restore-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Page {
  readonly events: readonly { readonly event_id: number; readonly request_id: string; readonly at: string }[];
  readonly next_cursor: string;
  readonly restarted_after: number | null;
}

/** A reader that does as CONTRACT says: forgets what is above restarted_after, and keeps the rest by event id. */
class Reader {
  cursor: string | null = null;
  restarts = 0;
  readonly seen = new Map<number, string>();
  readonly twice: number[] = [];

  async read(project: Project): Promise<void> {
    for (;;) {
      const page = await project.rpc<Page>("usage_events_since", { p_cursor: this.cursor, p_limit: 7 });
      this.cursor = page.next_cursor;
      if (page.restarted_after !== null) {
        this.restarts += 1;
        for (const id of this.seen.keys()) if (id > page.restarted_after) this.seen.delete(id);
      }
      for (const { event_id: id, request_id: request, at } of page.events) {
        if (this.seen.has(id)) this.twice.push(id);
        this.seen.set(id, `${request} ${at}`);
      }
      if (page.events.length < 7) return;
    }
  }

  copy(): Reader {
    const other = new Reader();
    other.cursor = this.cursor;
    for (const [id, event] of this.seen) other.seen.set(id, event);
    return other;
  }

  get all(): [number, string][] {
    return [...this.seen].sort(([a], [b]) => a - b);
  }
}

let calls = 0;
async function use(project: Project, user: string, count: number): Promise<void> {
  for (let n = 0; n < count; n += 1) {
    const id = `call-${(calls += 1)}`;
    await project.rpc("authorize_usage", {
      p_request_id: id,
      p_user_id: user,
      p_model: "gpt-4o-mini",
      p_estimated_tokens: 100,
    });
    await project.rpc("settle_usage", { p_request_id: id, p_input_tokens: 40, p_output_tokens: 20 });
  }
}

async function everything(project: Project): Promise<[number, string][]> {
  const reader = new Reader();
  await reader.read(project);
  return reader.all;
}

const openDoors = (project: Project) =>
  project
    .one<{ count: string }>("select count(*) from governance.open_doors()")
    .then(({ count }) => Number(count));

const pairs = [
  [15, 15],
  [15, 18],
  [18, 18],
] as const;

describe.each(pairs)("a dump of a project on PostgreSQL %i restored into a fresh one on %i", (from, to) => {
  const programs = findDumpPrograms(from);
  const servers = postgresUrls();
  const obstacle =
    servers[from] === null || servers[to] === null
      ? "PostgreSQL 15 is not installed here"
      : programs === null
        ? `pg_dump ${from} or newer is not installed here; the embedded server has no client programs`
        : null;
  if (obstacle !== null || programs === null) {
    it.skip(`is not tried: ${obstacle}`, () => {});
    console.warn(`Restoring ${from} into ${to} is not tried: ${obstacle}.`);
    return;
  }

  it("opens no door, keeps the books, and every kept cursor goes on or begins again safely", async () => {
    const source = await openProject(from);
    for (const user of ["a", "b"])
      await source.rpc("upsert_account", { p_user_id: user, p_email: `${user}@example.com` });
    await use(source, "a", 10);
    const tellUser = (project: Project): Promise<unknown> =>
      project.rpc("console_act", {
        p_command_id: `take-${(calls += 1)}`,
        p_user_id: "a",
        p_act: { kind: "take_tokens", tokens: 10 },
        p_reason: "x",
        p_operator: "op",
      });
    await source.rpc("run_maintenance");
    await tellUser(source);
    const early = new Reader();
    await early.read(source);
    await use(source, "b", 5);
    const file = join(folder, `${from}-${to}.dump`);
    await dump(programs, source.url, file);
    // What happens after the backup is not in it.
    await use(source, "a", 8);
    const late = early.copy();
    await late.read(source);
    expect(late.all).toEqual(await everything(source));

    const target = await restore(programs, servers[to] as string, file);
    // pg_dump carries no revoke, and the new project grants both roles whatever is new: the grants are open …
    expect(await openDoors(target)).toBeGreaterThan(60);
    // … and no function lets them in.
    const change = { p_user_id: "a", p_amount: 1_000_000, p_transaction_type: "bonus" };
    for (const role of ["anon", "authenticated"] as const) {
      for (const [name, parameters] of [
        ["update_user_token_balance", change],
        ["run_maintenance", {}],
        ["console_repair", {}],
        ["verify_ledger", {}],
        ["list_rules", {}],
        ["authorize_usage", { p_request_id: "x", p_user_id: "a", p_model: "m" }],
        ["settle_usage", { p_request_id: "call-1", p_input_tokens: 1, p_output_tokens: 1 }],
      ] as const)
        expect({ role, name, ...(await target.refusal(name, parameters, role)) }).toMatchObject({
          code: "42501",
          hint: "server_only",
        });
    }
    expect(await target.rpcAs("authenticated", "a", "my_token_balance")).toMatchObject({
      plan: expect.anything(),
    });

    // Mails that waited are the source's to send; what happens here is told from here.
    const toUsers = async (project: Project): Promise<number> =>
      (await project.rpc<{ audience: string }[]>("claim_notifications")).filter((n) => n.audience === "user")
        .length;
    expect(await toUsers(target)).toBe(0);
    await tellUser(target);
    expect([await toUsers(target), await toUsers(source)]).toEqual([1, 1]);

    // The books are those of the backup.
    expect(await target.rpc("verify_ledger")).toMatchObject({ problems: [], accounts_checked: 2 });

    // Upkeep finds the grants, health names them, and repair takes them back.
    await target.rpc("run_maintenance");
    const { alerts } = await target.rpc<{ alerts: { kind: string; severity: string }[] }>("console_alerts");
    expect(alerts).toContainEqual(expect.objectContaining({ kind: "doors_open", severity: "critical" }));
    const failing = async () =>
      (await target.rpc<{ checks: { check: string; ok: boolean }[] }>("console_health")).checks
        .filter(({ ok }) => !ok)
        .map(({ check }) => check);
    expect(await failing()).toEqual(expect.arrayContaining(["doors", "realtime"]));
    expect(await target.rpc("console_repair")).toMatchObject({ still_open: [], published: true });
    expect(await openDoors(target)).toBe(0);
    expect(await failing()).toEqual([]);
    expect((await target.refusal("update_user_token_balance", change, "anon")).message).toContain(
      "permission denied",
    );
    // A grant by hand opens nothing either.
    await target.sql.query("grant execute on all functions in schema public to anon, authenticated");
    expect(await target.refusal("update_user_token_balance", change, "anon")).toMatchObject({
      hint: "server_only",
    });

    // Readers that had read to before and to after the backup; and one that reads while life goes on.
    await early.read(target);
    await use(target, "b", 6);
    const lateAgain = late.copy();
    await late.read(target);
    await use(target, "a", 3);
    for (const reader of [early, late, lateAgain]) {
      await reader.read(target);
      await reader.read(target);
      expect(reader.all).toEqual(await everything(target));
      expect(reader.twice).toEqual([]);
    }
    expect(late.restarts).toBe(1);
    await Promise.all([source.close(), target.close()]);
  });
});

describe("a function of the project that signed-in users may call", () => {
  it("may call ours for them, as long as no grant is open", async () => {
    const project = await openProject(18);
    await project.sql.query(`create function public.their_own(p_id text) returns jsonb language sql security definer set search_path = '' as
      $$ select public.authorize_usage(p_id, 'user', 'gpt-4o-mini', 10) $$;
      alter function public.their_own(text) owner to project_owner;
      grant execute on function public.their_own(text) to authenticated`);
    expect(await project.rpcAs("authenticated", "user", "their_own", { p_id: "call-1" })).toMatchObject({
      decision: "allow",
    });
    // Nobody can say by a setting who they are.
    await project.sql.query("grant execute on all functions in schema public to anon");
    const caller = await project.sql.connect();
    await caller.query("begin; set local role anon");
    await caller.query(`select set_config('request.jwt.claims', '{"role": "service_role"}', true)`);
    await expect(caller.query("select public.get_user_token_balance('user')")).rejects.toMatchObject({
      code: "42501",
      hint: "server_only",
    });
    await caller.query("rollback");
    caller.release();
    await project.close();
  });
});
