/** The server dies, and its callers die: what was acknowledged is there once, and what was not can be asked again. */
import { type ChildProcess, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { startPostgres } from "../../support/postgres.ts";
import { expectSoundBooks, installedVersions, projectAt } from "../../support/project.ts";
import { sized } from "../../support/size.ts";

const clientsAtOnce = 6;
const connectionsEach = 3;

interface Acknowledged {
  /** Request ids with their users. */
  readonly tried: Map<string, string>;
  readonly held: Set<string>;
  readonly settled: Set<string>;
}

/** Client processes, each replaced when it is killed. */
function startClients(url: string): {
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

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  // The server that we ship dies often; the other one enough to notice where it differs.
  const serverKills = sized(version === 18 ? 3 : 1, 10);
  const clientKills = 2 * serverKills;
  it(`${serverKills} kills of the server and ${clientKills} of client processes under load lose no acknowledged effect and double none`, async () => {
    const server = await startPostgres({ version, settings: { fsync: "on", synchronous_commit: "on" } });
    const { url } = await createProjectDatabase(server.url(), { preset: "default" });
    const owner = projectAt(url, { connections: 2 });
    for (let user = 0; user < 8; user += 1) {
      await owner.call("upsert_account", `user-${user}`);
      await owner.call("update_user_token_balance", `user-${user}`, 5_000_000, "purchase");
    }
    await owner.close();

    const clients = startClients(url);
    const { tried, held, settled } = clients.acknowledged;
    for (let kill = 0; kill < serverKills; kill += 1) {
      // Under load: each life of the server has seen calls settled before anything is killed.
      const before = settled.size;
      while (settled.size < before + 20) await pause(20);
      for (let n = 0; n < clientKills / serverKills; n += 1) {
        clients.killOne();
        await pause(150 + 37 * kill);
      }
      await server.kill();
      await server.restart();
    }
    await clients.stop();

    const project = projectAt(url, { connections: 8 });
    const { rows } = await project.sql.query<{ request_id: string; status: string }>(
      "select request_id, status from governance.requests",
    );
    const status = new Map(rows.map((row) => [row.request_id, row.status]));
    expect([...held].filter((id) => !status.has(id))).toEqual([]);
    expect([...settled].filter((id) => status.get(id) !== "settled")).toEqual([]);
    await expectSoundBooks(project);

    // What is not known is asked again with the same key: one effect, whatever had become of it.
    const unknown = [...tried].filter(([id]) => !settled.has(id));
    expect(unknown.length).toBeGreaterThan(serverKills);
    for (const [id, user] of unknown) {
      expect(await project.call("authorize_usage", id, user, "gpt-4o-mini", 100)).toMatchObject({
        decision: "allow",
      });
      expect(await project.call("settle_usage", id, 30, 20)).toMatchObject({
        status: "settled",
        charged_tokens: 50,
      });
    }
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
    await project.call("run_maintenance");
    expect(
      await project.one("select count(*)::int as held from governance.requests where status = 'held'"),
    ).toEqual({ held: 0 });
    await expectSoundBooks(project);
    await project.close();
    await server.stop();
    rmSync(server.dataDir, { recursive: true, force: true });
  });
});
