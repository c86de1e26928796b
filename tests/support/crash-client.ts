/**
 * A backend under load, as a process of its own that can be killed: makes calls until it dies, comes back after the
 * server has died, and writes what it tried and what was acknowledged, a line each, as soon as it knows.
 * Arguments: URL of the database, a name for its request ids, connections; calls in a batch, where not one by one.
 */
import { writeSync } from "node:fs";
import pg from "pg";

const [url = "", name = "", connections = "1", batch = "1"] = process.argv.slice(2);
const say = (what: "tried" | "held" | "settled", id: string, user: string): void => {
  writeSync(1, `${what} ${id} ${user}\n`);
};

async function all(client: pg.Client, name: string, calls: readonly unknown[]): Promise<void> {
  const { rows } = await client.query<{ answers: { error?: unknown }[] }>(
    `select public.${name}($1) as answers`,
    [JSON.stringify(calls)],
  );
  const answers = rows[0]?.answers ?? [];
  if (answers.length !== calls.length || answers.some(({ error }) => error))
    throw new Error(`${name}: ${JSON.stringify(answers)}`);
}

async function work(connection: number): Promise<never> {
  for (let calls = 0; ; ) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    client.on("error", () => undefined);
    try {
      await client.connect();
      while (Number(batch) > 1) {
        calls += 1;
        const ids = Array.from({ length: Number(batch) }, (_, n) => ({
          id: `${name}-${connection}-${calls}/${n}`,
          // Accounts of its own: a call whose account is busy is not part of its batch.
          user: `user-${(Number(name.split("-")[1]) * 3 + connection) * 2 + (n % 2)}`,
        }));
        for (const { id, user } of ids) say("tried", id, user);
        const authorize = ids.map(({ id, user }) => ({
          request_id: id,
          user_id: user,
          model: "gpt-4o-mini",
          estimated_tokens: 100,
        }));
        await all(client, "authorize_usage_many", authorize);
        for (const { id, user } of ids) say("held", id, user);
        const settled = ids.slice(calls % 5);
        await all(
          client,
          "settle_usage_many",
          settled.map(({ id }) => ({ request_id: id, input_tokens: 30, output_tokens: 20 })),
        );
        for (const { id, user } of settled) say("settled", id, user);
      }
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
