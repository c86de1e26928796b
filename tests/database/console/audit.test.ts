/** The audit log says from where an act came, and its seals tell whether anything in it was changed. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

interface Check {
  readonly entries_checked: number;
  readonly seals: number;
  readonly problem_count: number;
  readonly problems: readonly Record<string, unknown>[];
  readonly upto: number | null;
  readonly hash: string | null;
  readonly unsealed: number;
}

describe.each(installedVersions())("the audit log, on PostgreSQL %i", (version) => {
  let desk: Project;
  let made = 0;
  const fresh = (what: string): string => `${what}-${++made}`;

  beforeAll(async () => {
    desk = await openProject(version, { connections: 8 });
    await desk.rpc("upsert_account", { p_user_id: "u-1" });
  });
  afterAll(() => desk?.close());

  const act = (reason: string, operator = "anna") =>
    desk.rpc("flag_user", {
      p_command_id: fresh("flag"),
      p_user_id: "u-1",
      p_reason: reason,
      p_operator: operator,
    });
  const check = () =>
    desk.rpc<Check>("console_verify_audit", { p_command_id: fresh("check"), p_operator: "anna" });
  /** Once all is sealed: whatever transaction runs on this server holds the seal up. */
  const sealed = async (): Promise<Check> => {
    for (let tries = 0; ; tries += 1) {
      const found = await check();
      if (found.unsealed === 0 || tries > 200) return found;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  /** As somebody does who owns the database. */
  const tamper = async (sql: string): Promise<void> => {
    await desk.sql.query(`begin; alter table governance.audit_log disable trigger user;
      alter table governance.audit_seals disable trigger user; ${sql};
      alter table governance.audit_log enable trigger user;
      alter table governance.audit_seals enable trigger user; commit`);
  };

  it("keeps the machine that the request names, filters by it, and takes nothing else for one", async () => {
    const from = async (headers: string | null): Promise<unknown> => {
      const client = await desk.sql.connect();
      try {
        await client.query("begin");
        if (headers !== null) await client.query("select set_config('request.headers', $1, true)", [headers]);
        await client.query("select public.flag_user($1, 'u-1', 'from somewhere', 'anna')", [fresh("from")]);
        await client.query("commit");
      } finally {
        client.release();
      }
      const { entries } = await desk.rpc<{ entries: { device: unknown }[] }>("console_audit", { p_limit: 1 });
      return entries[0]?.device;
    };
    expect(await from('{"x-console-device": "desk-7 0a1b2c3d"}')).toBe("desk-7 0a1b2c3d");
    expect(await from(null)).toBeNull();
    for (const odd of [
      "",
      "{",
      "[1]",
      '"text"',
      '{"x-console-device": {"a": 1}}',
      '{"x-console-device": ""}',
    ])
      expect([odd, typeof (await from(odd))]).toEqual([odd, odd.includes('"a"') ? "string" : "object"]);
    expect(await from(JSON.stringify({ "x-console-device": `\u0007<b>${"x".repeat(500)}` }))).toBe(
      `<b>${"x".repeat(117)}`,
    );
    const found = await desk.rpc<{ entries: unknown[] }>("console_audit", {
      p_filter: { device: "desk-7 0a1b2c3d" },
    });
    expect(found.entries).toHaveLength(1);
  });

  it("is sound however many write at once, and every entry is sealed once", async () => {
    const writing = Promise.all(Array.from({ length: 40 }, (_, n) => act(`at once ${n}`, `op-${n % 5}`)));
    await Promise.all([check(), check(), writing]);
    await desk.rpc("run_maintenance");
    const sound = await sealed();
    expect(sound).toMatchObject({ problem_count: 0, problems: [], unsealed: 0 });
    expect(sound.hash).toMatch(/^[0-9a-f]{64}$/);
    const { n } = await desk.one<{ n: number }>("select count(*)::int as n from governance.audit_log");
    // The only entry without a seal is the one that the check itself has written since.
    expect(sound.entries_checked).toBe(n - 1);
    // A repeat answers with the result of the first; the check itself is in the log.
    expect(
      await desk.rpc("console_audit", { p_filter: { action: "verify_audit" }, p_limit: 1 }),
    ).toMatchObject({
      entries: [{ operator: "anna", details: { problem_count: 0 } }],
    });
  });

  it.each([
    ["a reason was changed", "update governance.audit_log set reason = 'nothing' where audit_id = $id"],
    ["an operator was changed", "update governance.audit_log set operator = 'bert' where audit_id = $id"],
    [
      "a moment was changed",
      "update governance.audit_log set created_at = created_at + interval '1 microsecond' where audit_id = $id",
    ],
    ["a device was changed", "update governance.audit_log set device = 'other' where audit_id = $id"],
    ["an entry was taken out", "delete from governance.audit_log where audit_id = $id"],
    [
      "the newest seals were taken off",
      "delete from governance.audit_seals where seal_id = (select max(seal_id) from governance.audit_seals)",
    ],
    [
      "a seal was forged",
      "update governance.audit_seals set hash = repeat('a', 64) where seal_id = (select min(seal_id) from governance.audit_seals)",
    ],
  ])("tells that %s", async (_what, sql) => {
    await act("to be tampered with");
    expect(await sealed()).toMatchObject({ problem_count: 0, unsealed: 0 });
    const { id } = await desk.one<{ id: string }>(
      "select max(audit_id) as id from governance.audit_log where action = 'flag_user'",
    );
    await desk.sql.query("create table audit_copy as table governance.audit_log");
    await desk.sql.query("create table seals_copy as table governance.audit_seals");
    await tamper(sql.replace("$id", id));
    const found = await check();
    expect(found.problem_count).toBeGreaterThan(0);
    if (sql.includes("$id") && !sql.includes("delete"))
      expect(found.problems).toMatchObject([{ entries: expect.any(Number), found: expect.any(Number) }]);
    // Put back as it was, it is sound again: the check remembers nothing but the seals.
    await tamper(`delete from governance.audit_log where audit_id in (select audit_id from audit_copy);
      insert into governance.audit_log overriding system value select * from audit_copy;
      delete from governance.audit_seals where seal_id in (select seal_id from seals_copy);
      insert into governance.audit_seals overriding system value select * from seals_copy`);
    await desk.sql.query("drop table audit_copy; drop table seals_copy");
    expect(await check()).toMatchObject({ problem_count: 0 });
  });

  it("is append-only for everybody, seals included", async () => {
    for (const table of ["audit_log", "audit_seals"])
      await expect(desk.sql.query(`delete from governance.${table}`)).rejects.toThrow(/append-only/i);
  });
});
