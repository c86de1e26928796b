import pg from "pg";
import { expect, it } from "vitest";
import { openProject, type Project } from "../../support/project.ts";

interface Page {
  readonly events: readonly {
    readonly event_id: number;
    readonly request_id: string;
    readonly kind: string;
  }[];
  readonly next_cursor: string;
}

/** Reads on from its cursor until there is nothing more, as a console does. */
function createReader(desk: Project, limit: number) {
  let cursor: string | null = null;
  const seen: string[] = [];
  return {
    seen,
    async read(): Promise<void> {
      for (;;) {
        const page: Page = await desk.rpc("usage_events_since", { p_cursor: cursor, p_limit: limit });
        cursor = page.next_cursor;
        seen.push(...page.events.map(({ request_id, kind }) => `${request_id} ${kind}`));
        if (page.events.length < limit) return;
      }
    },
  };
}

it("gives an event whose transaction has a later number and an earlier id than one that is read already", async () => {
  const desk = await openProject(18);
  const connect = async () => {
    const client = new pg.Client({ connectionString: desk.ownerUrl });
    await client.connect();
    return client;
  };
  const [first, second] = [await connect(), await connect()];
  const reader = createReader(desk, 2);
  for (const user of ["a", "b"]) await desk.rpc("upsert_account", { p_user_id: user });
  await reader.read();
  await second.query("begin");
  await second.query("select pg_current_xact_id()");
  await first.query("begin");
  await first.query("select public.authorize_usage('early-id', 'a', 'm', 10)");
  await second.query("select public.authorize_usage('late-id', 'b', 'm', 10)");
  await second.query("commit");
  await reader.read();
  await reader.read();
  await first.query("commit");
  await reader.read();
  await reader.read();
  expect(reader.seen).toEqual(["late-id authorized", "early-id authorized"]);
  await first.end();
  await second.end();
  await desk.close();
});

it("gives every event once to readers that page while calls commit in any order", async () => {
  const desk = await openProject(18);
  const workers = 12;
  const pool = new pg.Pool({ connectionString: desk.ownerUrl, max: workers });
  let isDone = false;
  const readers = [1, 7, 500].map((limit) => createReader(desk, limit));
  const reading = (async () => {
    while (!isDone) for (const reader of readers) await reader.read();
  })();
  await Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      for (let n = 0; n < 20; n += 1) {
        const client = await pool.connect();
        const requestId = `${worker}-${n}`;
        await client.query("begin");
        await client.query("select public.authorize_usage($1, $2, 'm', 10)", [requestId, `user-${worker}`]);
        // Some keep their transaction open while others pass them by.
        if (n % 4 === worker % 4) await new Promise((resolve) => setTimeout(resolve, 20));
        await client.query(n % 10 === 9 ? "rollback" : "commit");
        if (n % 10 < 9) await client.query("select public.settle_usage($1, 5, 5)", [requestId]);
        client.release();
      }
    }),
  );
  isDone = true;
  await reading;
  const expected = Array.from({ length: workers }, (_, worker) =>
    Array.from({ length: 20 }, (_, n) => n)
      .filter((n) => n % 10 < 9)
      .flatMap((n) => [`${worker}-${n} authorized`, `${worker}-${n} settled`]),
  ).flat();
  for (const reader of readers) {
    await reader.read();
    expect(reader.seen.toSorted()).toEqual(expected.toSorted());
  }
  await pool.end();
  await desk.close();
});
