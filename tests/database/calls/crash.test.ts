/** The server dies, and its callers die: what was acknowledged is there once, and what was not can be asked again. */
import { type ChildProcess, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { startPostgres } from "../../support/postgres.ts";
import { sized } from "../../support/size.ts";
import { expectSoundBooks, installedVersions, projectAt } from "../../support/project.ts";

const clientsAtOnce = 6;
const connectionsEach = 3;

interface Acknowledged {
  /** Request ids with their users. */
  readonly tried: Map<string, string>;
  readonly held: Set<string>;
  readonly settled: Set<string>;
}

/** Client processes, each replaced when it is killed. */
function startClients(
  url: string,
  batch: number,
): {
  acknowledged: Acknowledged;
  killOne(): void;
  stop(): Promise<void>;
} {
  const acknowledged: Acknowledged = { tried: new Map(), held: new Set(), settled: new Set() };
  const running: ChildProcess[] = [];
  const ended: Promise<unknown>[] = [];
  let names = 0;
  function start(): void {
    names += 1;
    const child = spawn(
      process.execPath,
      [
        new URL("../../support/crash-client.ts", import.meta.url).pathname,
        url,
        `crash-${names}`,
        String(connectionsEach),
        String(batch),
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (line) => {
      const [what, id = "", user = ""] = line.split(" ");
      // A process that dies while it writes may leave half a line: its user is missing.
      if (user === "") return;
      if (what === "tried") acknowledged.tried.set(id, user);
      else if (what === "held") acknowledged.held.add(id);
      else if (what === "settled") acknowledged.settled.add(id);
    });
    running.push(child);
    ended.push(new Promise((resolve) => lines.once("close", resolve)));
  }
  for (let n = 0; n < clientsAtOnce; n += 1) start();
  return {
    acknowledged,
    killOne() {
      running.shift()?.kill("SIGKILL");
      start();
    },
    async stop() {
      for (const child of running) child.kill("SIGKILL");
      await Promise.all(ended);
    },
  };
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  // The server that we ship dies often; the other one enough to notice where it differs.
  const serverKills = sized(version === 18 ? 2 : 1, 10);
  // 14 and 28 are the 40 kills and more.
  const batchKills = sized(version === 18 ? 2 : 1, 14);
  it.each([
    ["one by one", 1, serverKills],
    ["in batches", 12, batchKills],
  ])(
    "calls %s: kills of the server and twice as many of client processes under load lose no acknowledged effect and double none",
    async (_way, batch, serverKills) => {
      const server = await startPostgres({ version, settings: { fsync: "on", synchronous_commit: "on" } });
      onTestFinished(async () => {
        await server.stop();
        rmSync(server.dataDir, { recursive: true, force: true });
      });
      const { url } = await createProjectDatabase(server.url(), { preset: "default" });
      const owner = projectAt(url, { connections: 2 });
      for (const change of [
        "upsert_account('user-' || n)",
        "update_user_token_balance('user-' || n, 5000000, 'purchase')",
      ])
        await owner.sql.query(`select ${change} from generate_series(0, $1::int) n`, [batch === 1 ? 7 : 399]);
      await owner.close();

      const clients = startClients(url, batch);
      // A process that outlives its test holds the output of the run open: the run would never end.
      onTestFinished(() => clients.stop());
      const { tried, held, settled } = clients.acknowledged;
      for (let kill = 0; kill < serverKills; kill += 1) {
        // Under load: each life of the server has seen calls settled before anything is killed.
        const before = settled.size;
        while (settled.size < before + 20) await pause(20);
        for (let n = 0; n < 2; n += 1) {
          clients.killOne();
          await pause(150 + 37 * kill);
        }
        await server.kill();
        await server.restart();
      }
      await clients.stop();

      const connections = 8;
      const project = projectAt(url, { connections });
      const { rows } = await project.sql.query<{ request_id: string; status: string }>(
        "select request_id, status from governance.requests",
      );
      const status = new Map(rows.map((row) => [row.request_id, row.status]));
      expect([...held].filter((id) => !status.has(id))).toEqual([]);
      expect([...settled].filter((id) => status.get(id) !== "settled")).toEqual([]);
      await expectSoundBooks(project);
      // A batch happened whole or not at all: all its calls are there or none, and all that it was to settle or none.
      const batches = new Map<string, { calls: number; settled: number }>();
      for (const [id, state] of status) {
        if (batch === 1) break;
        const found = batches.get(id.replace(/\/.*/, "")) ?? { calls: 0, settled: 0 };
        batches.set(id.replace(/\/.*/, ""), {
          calls: found.calls + 1,
          settled: found.settled + (state === "settled" ? 1 : 0),
        });
      }
      expect(batches.size > 0).toBe(batch > 1);
      for (const [name, { calls, settled: ended }] of batches) {
        expect(calls, name).toBe(batch);
        expect([0, batch - (Number(name.split("-").at(-1)) % 5)], name).toContain(ended);
      }

      // What is not known is asked again with the same key: one effect, whatever had become of it.
      const unknown = [...tried].filter(([id]) => !settled.has(id));
      expect(unknown.length).toBeGreaterThan(serverKills);
      const left = unknown.values();
      const askAgain = async (): Promise<void> => {
        for (const [id, user] of left) {
          expect(await project.call("authorize_usage", id, user, "gpt-4o-mini", 100)).toMatchObject({
            decision: "allow",
          });
          expect(await project.call("settle_usage", id, 30, 20)).toMatchObject({
            status: "settled",
            charged_tokens: 50,
          });
        }
      };
      await Promise.all(Array.from({ length: connections }, askAgain));
      expect(
        await project.one(
          "select count(*)::int as calls, count(*) filter (where status = 'settled')::int as settled from governance.requests",
        ),
      ).toEqual({ calls: tried.size, settled: tried.size });
      await expectSoundBooks(project);

      // Fresh holds are untouched by upkeep; stale ones are given back by it.
      await project.call("authorize_usage", "fresh", "user-0", "gpt-4o-mini", 100);
      await project.call("run_maintenance");
      expect(await project.one("select status from governance.requests where request_id = 'fresh'")).toEqual({
        status: "held",
      });
      await project.sql.query("select governance.set_test_clock(governance.now() + interval '1 hour')");
      // A round leaves what does not fit into its time to the next one.
      for (let rounds = 0; rounds < 10; rounds++) if (!(await project.call("run_maintenance")).more) break;
      expect(
        await project.one("select count(*)::int as held from governance.requests where status = 'held'"),
      ).toEqual({ held: 0 });
      await expectSoundBooks(project);
      await project.close();
    },
  );
});
