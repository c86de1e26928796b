/**
 * Many calls in one batch mean what the same calls mean one by one: the same answers, and the same books. A refused
 * call is refused in its slot, whatever stands beside it.
 */
import { seeded, sized } from "../../support/size.ts";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Dice } from "../../support/models/core-cases.ts";
import {
  type Answer,
  installedVersions,
  openProject,
  type Project,
  projectAt,
} from "../../support/project.ts";

const historiesOn = (version: 15 | 18): number => sized(version === 18 ? 8 : 4, 10_000);
const seed = seeded(20261128);

type Kind = "authorize_usage" | "settle_usage" | "release_usage" | "record_token_usage";
type Call = Readonly<Record<string, unknown>>;
interface Batch {
  readonly kind: Kind;
  readonly calls: readonly Call[];
}

const users = ["ann", "bob", "cem", "dia"];
const messages = [null, "hello", "the same again", "buy my crypto now", "a ".repeat(600)];

/** Calls as a busy backend makes them, with repeats, conflicts and nonsense among them. Its users and ids are its own. */
function history(dice: Dice, name: string): Batch[] {
  const ids: string[] = [];
  const make: Record<Kind, () => Call> = {
    authorize_usage: () => {
      const known = ids.length > 0 && dice.chance(0.1);
      const id = known ? dice.pick(ids) : `${name}-r${ids.length}`;
      if (!known) ids.push(id);
      return {
        request_id: dice.chance(0.02) ? "" : id,
        user_id: `${name}-${dice.pick(users)}`,
        model: dice.pick(["gpt-4o", "gpt-4o-mini", "unheard-of"]),
        ...(dice.chance(0.8) ? { estimated_tokens: dice.pick([1, 50, 900, 20_000, 10_000_000, -1]) } : {}),
        ...(dice.chance(0.5) ? { message: dice.pick(messages) } : {}),
        ...(dice.chance(0.3) ? { conversation_id: "c", task_type: "chat", scope_id: "brand" } : {}),
      };
    },
    settle_usage: () => ({
      request_id: ids.length > 0 && dice.chance(0.95) ? dice.pick(ids) : "unknown",
      input_tokens: dice.pick([0, 10, 700, 60_000]),
      output_tokens: dice.pick([0, 5, 300]),
      ...(dice.chance(0.2) ? { metadata: { cached_input_tokens: dice.pick([0, 5, 9_000_000]) } } : {}),
    }),
    release_usage: () => ({
      request_id: ids.length > 0 && dice.chance(0.95) ? dice.pick(ids) : "unknown",
      ...(dice.chance(0.3) ? { reason: dice.pick(["failed", "left"]) } : {}),
    }),
    record_token_usage: () => ({
      user_id: dice.chance(0.03) ? "" : `${name}-${dice.pick(users)}`,
      tokens_used: dice.pick([1, 400, 30_000, 10_000_000, 0]),
      ...(dice.chance(0.3) ? { cost_gbp: dice.pick([0, 0.25, -1]) } : {}),
      ...(dice.chance(0.7) ? { model: dice.pick(["gpt-4o", "unheard-of"]) } : {}),
    }),
  };
  return Array.from({ length: 8 }, () => {
    const kind = dice.pick<Kind>([
      "authorize_usage",
      "authorize_usage",
      "settle_usage",
      "settle_usage",
      "release_usage",
      "record_token_usage",
    ]);
    return { kind, calls: Array.from({ length: dice.pick([1, 2, 5, 12, 30]) }, make[kind]) };
  });
}

const order: Record<Kind, readonly string[]> = {
  authorize_usage: [
    "request_id",
    "user_id",
    "model",
    "estimated_tokens",
    "message",
    "conversation_id",
    "task_type",
    "scope_id",
  ],
  settle_usage: ["request_id", "input_tokens", "output_tokens", "model", "metadata"],
  release_usage: ["request_id", "reason"],
  record_token_usage: ["user_id", "tokens_used", "cost_gbp", "model"],
};

/** One call through its single function; what it refuses, as a batch's slot says it. */
async function single(project: Project, kind: Kind, call: Call): Promise<unknown> {
  const parameters = Object.fromEntries(
    order[kind].filter((name) => name in call).map((name) => [`p_${name}`, call[name]]),
  );
  try {
    return await project.rpc(kind, parameters);
  } catch (error) {
    const { code, hint, message, detail } = error as Record<string, string | undefined>;
    return {
      error: {
        code,
        hint: hint === "" ? null : (hint ?? null),
        message,
        details: detail === "" ? null : (detail ?? null),
      },
    };
  }
}

const many = (project: Project, kind: Kind, calls: readonly unknown[]): Promise<Answer[]> =>
  project.rpc(`${kind}_many`, { p_calls: JSON.stringify(calls) });

/** Drawn from one sequence, in another order within a batch: everything else must be the same. */
const drawn: ReadonlySet<string> = new Set(["decision_id", "transaction_id"]);
/** The id that record_token_usage draws for a call. */
const recordId = /record-[0-9a-f-]{36}/g;
const compared = (answer: unknown): unknown =>
  JSON.parse(
    JSON.stringify(answer, (key, value: unknown) => (drawn.has(key) ? undefined : value)).replace(
      recordId,
      "record",
    ),
  );

/** What is kept of the users of one history. */
const BOOKS = `with a as (select x.* from governance.accounts x where x.user_id like $1 || '-%')
select jsonb_build_object(
  'accounts', (select jsonb_agg(to_jsonb(a) - array['account_id', 'last_hash', 'last_transaction_id', 'created_at'] order by a.user_id) from a),
  'ledger', (select jsonb_agg(jsonb_build_array(a.user_id, t.transaction_type, t.amount, t.new_balance, t.debt_after) order by a.user_id, t.transaction_id)
    from governance.token_transactions t join a using (account_id)),
  'usage', (select jsonb_agg(to_jsonb(d) - 'account_id' order by a.user_id, d.day, d.model, d.task_type, d.scope_id)
    from governance.usage_daily d join a using (account_id)),
  'calls', (select jsonb_agg(jsonb_build_array(regexp_replace(r.request_id, '^record-.*', 'record'), r.status, r.decision, r.reason, r.charged_tokens, r.reserved_tokens)
      order by regexp_replace(r.request_id, '^record-.*', 'record'), a.user_id, r.decision_id)
    from governance.requests r join a using (account_id))
) as books`;
const PROBLEMS = "select verify_ledger() -> 'problems' as problems";

const start = "2027-03-10T10:00:00Z";

/** Two projects that know nothing yet, at one moment. */
async function openTwo(version: 15 | 18): Promise<readonly [Project, Project]> {
  const projects = await Promise.all([openProject(version), openProject(version)]);
  for (const project of projects) await project.setClock(start, true);
  return projects;
}

/** The n-th history in both projects: call by call in the one, in batches in the other. */
async function compareHistory(
  [alone, together]: readonly [Project, Project],
  n: number,
  beforeBatch: (dice: Dice) => Promise<void> = async () => undefined,
): Promise<void> {
  const name = `h${n}`;
  for (const project of [alone, together])
    for (const user of users)
      await project.rpc("upsert_account", { p_user_id: `${name}-${user}`, p_plan_id: "pro" });
  const dice = new Dice(seed + n);
  for (const { kind, calls } of history(dice, name)) {
    await beforeBatch(dice);
    const answers: unknown[] = [];
    for (const call of calls) answers.push(await single(alone, kind, call));
    expect(
      compared(await many(together, kind, calls)),
      `seed ${seed + n}, ${kind} ${JSON.stringify(calls)}`,
    ).toEqual(compared(answers));
  }
  const [one, other] = await Promise.all([alone.one(BOOKS, [name]), together.one(BOOKS, [name])]);
  expect(other, `seed ${seed + n}`).toEqual(one);
}

describe.each(installedVersions())("batches on PostgreSQL %i", (version) => {
  const histories = historiesOn(version);
  it(`of random sizes over ${histories} random histories answer and book as the same calls one by one`, async () => {
    const projects = await openTwo(version);
    let next = 0;
    const compareHistories = async (): Promise<void> => {
      for (let n = next++; n < histories; n = next++) await compareHistory(projects, n);
    };
    try {
      // Several at once, which touch no user of one another.
      await Promise.all([compareHistories(), compareHistories(), compareHistories(), compareHistories()]);
      for (const project of projects) expect(await project.one(PROBLEMS)).toEqual({ problems: [] });
    } finally {
      await Promise.all(projects.map((project) => project.close()));
    }
  });

  describe("while time passes", () => {
    let projects: readonly [Project, Project];
    let now = Date.parse(start);
    const pass = async (minutes: number): Promise<void> => {
      now += minutes * 60_000;
      for (const project of projects) await project.setClock(new Date(now).toISOString(), true);
    };
    beforeAll(async () => {
      projects = await openTwo(version);
    });
    afterAll(() => Promise.all(projects.map((project) => project.close())));

    it("calls whose holds have ended are settled beside one that is still held", async () => {
      const [alone, together] = projects;
      const settle = (id: string): Call => ({ request_id: id, input_tokens: 10, output_tokens: 5 });
      for (const [id, minutes] of [
        ["old-1", 0],
        ["old-2", 10],
        ["new", 6],
      ] as const) {
        for (const project of projects) await project.call("authorize_usage", id, "old-eve", "gpt-4o", 1_000);
        await pass(minutes);
      }
      const answers = [];
      for (const id of ["old-1", "old-2"]) answers.push(await single(alone, "settle_usage", settle(id)));
      expect(answers).toMatchObject([{ balance: { reserved: 1_000 } }, { balance: { reserved: 1_000 } }]);
      const inBatch = await many(together, "settle_usage", [settle("old-1"), settle("old-2")]);
      expect(compared(inBatch)).toEqual(compared(answers));
      expect(await together.one(BOOKS, ["old"])).toEqual(await alone.one(BOOKS, ["old"]));
    });

    it("who only settles again has not been active again, whoever settles beside", async () => {
      const [alone, together] = projects;
      const settle = (id: string): Call => ({ request_id: id, input_tokens: 10, output_tokens: 5 });
      for (const project of projects) {
        // In the order in which they are settled.
        await project.call("authorize_usage", "first", "again-ann", "gpt-4o", 1_000);
        await project.call("authorize_usage", "second", "again-bob", "gpt-4o", 1_000);
        await single(project, "settle_usage", settle("second"));
      }
      await pass(1);
      const answers = [];
      for (const id of ["first", "second"]) answers.push(await single(alone, "settle_usage", settle(id)));
      const inBatch = await many(together, "settle_usage", [settle("first"), settle("second")]);
      expect(compared(inBatch)).toEqual(compared(answers));
      expect(await together.one(BOOKS, ["again"])).toEqual(await alone.one(BOOKS, ["again"]));
    });

    it(`holds end, days and months begin: ${histories} random histories are the same, too`, async () => {
      for (let n = 0; n < histories; n++)
        await compareHistory(projects, n, (dice) =>
          dice.chance(0.4) ? Promise.resolve() : pass(dice.pick([1, 16, 600, 3 * 1_440, 40 * 1_440])),
        );
      for (const project of projects) expect(await project.one(PROBLEMS)).toEqual({ problems: [] });
    });
  });

  describe("with bad input", () => {
    let project: Project;
    beforeAll(async () => {
      project = await openProject(version);
      await project.rpc("upsert_account", { p_user_id: "ann", p_plan_id: "business" });
    });
    afterAll(() => project.close());

    // First: a connection keeps the plans it made for an empty month.
    it("a call is found by its key from the very first one on, not by a walk through its month", async () => {
      const client = await project.sql.connect();
      const ids = ["first", "second"];
      const ask = (kind: Kind, rest: object): Promise<unknown> =>
        client.query(`select ${kind}_many($1)`, [
          JSON.stringify(ids.map((id) => ({ request_id: id, ...rest }))),
        ]);
      try {
        await client.query("begin");
        await ask("authorize_usage", { user_id: "ann", model: "gpt-4o" });
        await ask("settle_usage", { input_tokens: 1, output_tokens: 1 });
        ids.splice(0, 2, "third", "fourth");
        await ask("authorize_usage", { user_id: "ann", model: "gpt-4o" });
        await ask("release_usage", {});
        expect(
          (
            await client.query(
              "select pg_stat_get_xact_numscans('governance.request_keys'::regclass) as walks",
            )
          ).rows,
        ).toEqual([{ walks: "0" }]);
        const { rows } = await client.query(
          `select distinct regexp_replace(s.indexrelname, '^requests_(default|\\d+_\\d+)_', '') as index
          from pg_stat_user_indexes s
          where s.relname like 'requests\\_%' and s.relname <> 'request_keys'
            and pg_stat_get_xact_numscans(s.indexrelid) > 0`,
        );
        expect(rows).toEqual([{ index: "pkey" }]);
      } finally {
        await client.query("rollback");
        client.release();
      }
    });

    it("a batch of any kind holds the locks of its own accounts alone", async () => {
      for (const user of ["own", "other"])
        for (const n of [1, 2, 3]) await project.call("authorize_usage", `${user}-${n}`, user, "gpt-4o", 5);
      // Of a table of one page a plan reads every row.
      await project.sql.query("analyze governance.request_keys");
      const client = await project.sql.connect();
      const beside = projectAt(project.url, { connections: 1 });
      const isFree = async (user: string): Promise<boolean> =>
        (
          await beside.one<{ is_free: boolean }>(
            "select pg_try_advisory_xact_lock(governance.lock_key($1)) as is_free",
            [user],
          )
        ).is_free;
      try {
        for (const [name, call] of [
          ["authorize_usage_many", { request_id: "own-4", user_id: "own", model: "gpt-4o" }],
          ["settle_usage_many", { request_id: "own-1", input_tokens: 1, output_tokens: 1 }],
          ["release_usage_many", { request_id: "own-2" }],
          ["record_token_usage_many", { user_id: "own", tokens_used: 1 }],
        ] as const) {
          await client.query("begin");
          await client.query(`select ${name}($1)`, [JSON.stringify([call])]);
          expect([name, await isFree("own"), await isFree("other")]).toEqual([name, false, true]);
          await client.query("rollback");
        }
      } finally {
        await client.query("rollback");
        client.release();
        await beside.close();
      }
    });

    it.each([
      ["nothing", null],
      ["an object", {}],
      ["a text", "text"],
      ["a number", 7],
      ["501 calls", Array.from({ length: 501 }, () => ({}))],
    ])("%s is refused whole: a batch is an array of at most 500 calls", async (_what, calls) => {
      expect(await project.refusal("authorize_usage_many", { p_calls: JSON.stringify(calls) })).toMatchObject(
        {
          code: "PT400",
          hint: "invalid_argument",
        },
      );
    });

    it("an empty batch answers an empty array", async () => {
      expect(await many(project, "authorize_usage", [])).toEqual([]);
    });

    it.each([0, 1, 2, 3, 4, 5, 6, 7])("a poisoned call at place %i harms no other", async (place) => {
      const poisons: unknown[] = [
        null,
        5,
        [],
        {},
        { request_id: 1 },
        { request_id: "p", user_id: "ann", model: "m", x: 1 },
      ];
      for (const [n, poison] of poisons.entries()) {
        const calls: unknown[] = Array.from({ length: 8 }, (_, at) => ({
          request_id: `p${place}-${n}-${at}`,
          user_id: "ann",
          model: "gpt-4o",
          estimated_tokens: 10,
        }));
        calls[place] = poison;
        const answers = await many(project, "authorize_usage", calls);
        expect(answers.map((answer, at) => [at, "error" in answer])).toEqual(
          calls.map((_, at) => [at, at === place]),
        );
        expect(answers[place]).toMatchObject({ error: { hint: "invalid_argument" } });
      }
    });

    const texts = [{ a: 1 }, [1], [], true, false];
    const wholes = [1.5, "1.5", "x", "", true, [1], { a: 1 }, 1e30, -1e30];
    const numbers = ["x", true, [1], { a: 1 }];
    const fields: readonly [Kind, Call, Readonly<Record<string, readonly unknown[]>>][] = [
      [
        "authorize_usage",
        { request_id: "typed", user_id: "typed", model: "gpt-4o", estimated_tokens: 10 },
        { user_id: texts, estimated_tokens: wholes, complexity: numbers },
      ],
      [
        "settle_usage",
        { request_id: "typed", input_tokens: 1, output_tokens: 1, metadata: { own: { any: [true] } } },
        { input_tokens: wholes, output_tokens: wholes },
      ],
      [
        "record_token_usage",
        { user_id: "typed", tokens_used: 5 },
        { user_id: texts, tokens_used: wholes, cost_gbp: numbers },
      ],
    ];
    it.each(fields)(
      "%s: a value of a wrong type is refused in its slot, by its name",
      async (kind, call, wrong) => {
        const accounts = "select count(*)::int as count from governance.accounts";
        const before = await project.one(accounts);
        const cases = Object.entries(wrong).flatMap(([field, values]) =>
          values.map((value) => ({ field, call: { ...call, [field]: value } })),
        );
        const answers = await many(
          project,
          kind,
          cases.map((each) => each.call),
        );
        expect(answers.map(({ error }, at) => ({ ...cases[at], error }))).toEqual(
          cases.map((each) => ({
            ...each,
            error: {
              code: "PT400",
              hint: "invalid_argument",
              details: null,
              message: expect.stringMatching(new RegExp(`^p_${each.field} .{10}`)) as unknown,
            },
          })),
        );
        expect(await project.one(accounts)).toEqual(before);
      },
    );

    it("a number given for a text, and digits for a number, are taken as PostgREST takes them", async () => {
      const call = { request_id: 71, user_id: 72, model: 73, estimated_tokens: "10", complexity: "1e-1" };
      const [number] = await many(project, "authorize_usage", [call]);
      const texts = { request_id: "71", user_id: "72", model: "73", estimated_tokens: 10, complexity: 0.1 };
      const [again] = await many(project, "authorize_usage", [texts]);
      expect(number).toMatchObject({ request_id: "71", decision: "allow" });
      expect(again).toEqual(number);
    });

    it("a batch that a timeout cuts off has not happened at all", async () => {
      const calls = Array.from({ length: 400 }, (_, n) => ({
        request_id: `cut-${n}`,
        user_id: "ann",
        model: "gpt-4o",
      }));
      const before = await project.one("select count(*)::int as n from governance.requests");
      const client = await project.sql.connect();
      try {
        await client.query("set statement_timeout = '3ms'");
        await expect(
          client.query("select authorize_usage_many($1)", [JSON.stringify(calls)]),
        ).rejects.toMatchObject({ code: "57014" });
      } finally {
        await client.query("reset statement_timeout");
        client.release();
      }
      expect(await project.one("select count(*)::int as n from governance.requests")).toEqual(before);
    });

    it.each(["authorize_usage", "settle_usage", "release_usage"] as const)(
      "%s: an account that another transaction holds keeps its own calls waiting, and no others",
      async (kind) => {
        const call = (user: string): Call => ({
          request_id: `held-${kind}-${user}`,
          ...(kind === "authorize_usage" ? { user_id: user, model: "gpt-4o", estimated_tokens: 10 } : {}),
          ...(kind === "settle_usage" ? { input_tokens: 3, output_tokens: 4 } : {}),
        });
        for (const user of users) {
          await project.rpc("upsert_account", { p_user_id: user, p_plan_id: "pro" });
          if (kind !== "authorize_usage")
            await project.call("authorize_usage", `held-${kind}-${user}`, user, "gpt-4o", 10);
        }
        const other = new pg.Client({ connectionString: project.url });
        await other.connect();
        await other.query("begin");
        await other.query("select governance.lock_account('bob')");
        const answers = await many(project, kind, ["ann", "bob", "cem", "bob", "dia"].map(call));
        await other.query("rollback");
        await other.end();
        const busy = { error: { code: "55P03", hint: "account_busy" } };
        for (const place of [1, 3]) expect(answers[place]).toMatchObject(busy);
        for (const place of [0, 2, 4])
          expect(answers[place]).toMatchObject({
            request_id: call(["ann", "", "cem", "", "dia"][place] ?? "")["request_id"],
          });
        // Nothing of it has happened: asked again, it does.
        expect(await many(project, kind, [call("bob")])).toMatchObject([{ request_id: `held-${kind}-bob` }]);
      },
    );

    it("500 calls of one account hold no more than is there", async () => {
      await project.rpc("upsert_account", { p_user_id: "poor", p_plan_id: "starter" });
      const { balance } = await project.one<{ balance: number }>(
        "select get_user_token_balance('poor')::int as balance",
      );
      const calls = Array.from({ length: 500 }, (_, n) => ({
        request_id: `poor-${n}`,
        user_id: "poor",
        model: "gpt-4o",
        estimated_tokens: 400,
      }));
      const answers = await many(project, "authorize_usage", calls);
      const held = answers.filter(({ decision }) => decision !== "block").length * 400;
      expect(held).toBeLessThanOrEqual(balance);
      expect(
        await project.one(
          "select reserved_tokens::int as held from governance.accounts where user_id = 'poor'",
        ),
      ).toEqual({
        held,
      });
      expect((await project.one<{ v: unknown }>("select verify_ledger() -> 'problems' as v")).v).toEqual([]);
    });
  });
});
