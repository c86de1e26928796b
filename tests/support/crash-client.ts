/**
 * A backend under load, as a process of its own that can be killed: makes calls until it dies, comes back after the
 * server has died, and writes what it tried and what was acknowledged, a line each, as soon as it knows.
 * Arguments: URL of the database, a name for its request ids, connections.
 */
import { writeSync } from "node:fs";
import pg from "pg";

const [url = "", name = "", connections = "1"] = process.argv.slice(2);
const say = (what: "tried" | "held" | "settled", id: string, user: string): void => {
  writeSync(1, `${what} ${id} ${user}\n`);
};

async function work(connection: number): Promise<never> {
  for (let calls = 0; ; ) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    client.on("error", () => undefined);
    try {
      await client.connect();
      for (;;) {
        calls += 1;
        const id = `${name}-${connection}-${calls}`;
        const user = `user-${(calls + connection) % 8}`;
        say("tried", id, user);
        await client.query("select public.authorize_usage($1, $2, 'gpt-4o-mini', 100)", [id, user]);
        say("held", id, user);
        if (calls % 5 === 0) continue;
        await client.query("select public.settle_usage($1, 30, 20)", [id]);
        say("settled", id, user);
      }
    } catch {
      // The server was killed: what was under way is unknown here, as it is to any caller.
      await new Promise((resolve) => setTimeout(resolve, 20));
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}

await Promise.all(Array.from({ length: Number(connections) }, (_, connection) => work(connection)));
