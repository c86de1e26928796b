/**
 * Many histories in one project: users who change zones over month ends, prices that change, settlements that come days
 * late, calls that rules reroute or stop. Each desk's figure is a plain sum over the calls, for everybody and for each.
 */
import { expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject } from "../../support/project.ts";
import { seeded, sized } from "../../support/size.ts";

const histories = sized(150, 10_000);
const zones = [
  "UTC",
  "Pacific/Kiritimati",
  "Etc/GMT+12",
  "Asia/Kathmandu",
  "America/New_York",
  "Europe/London",
];
const begin = Date.parse("2027-01-25T06:00:00Z");
const price = (model: string, micros: number, from: string): object => ({
  provider: "openai",
  model,
  input_micros_per_million: micros,
  output_micros_per_million: 4 * micros,
  cached_input_micros_per_million: micros / 2,
  currency: "USD",
  effective_from: from,
});
const preset = {
  name: "histories",
  currency: "USD",
  default_plan: "a",
  plans: [
    { plan_id: "a", monthly_allowance: 5_000_000 },
    { plan_id: "b", monthly_allowance: 5_000_000 },
  ],
  prices: [
    price("large", 10_000_000, "2026-01-01T00:00:00Z"),
    // In the middle of all histories.
    price("large", 6_000_000, "2027-02-14T11:30:00Z"),
    price("small", 1_000_000, "2026-01-01T00:00:00Z"),
  ],
  rules: [
    {
      rule_name: "small is enough",
      rule_type: "routing",
      priority: 1,
      conditions: { all: [{ fact: "estimated_tokens", op: "<", value: 100 }] },
      action: { route: { model: "small" } },
    },
    {
      rule_name: "too large",
      rule_type: "cost",
      priority: 2,
      conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 1_800 }] },
      action: { block: { reason: "token_hogging", message: "No" } },
    },
  ],
};

interface Costs {
  readonly cost_micros: number;
  readonly calls: number;
  readonly tokens: number;
  readonly periods: readonly { readonly cost_micros: number }[];
  readonly parts: readonly { readonly key: string; readonly cost_micros: number; readonly calls: number }[];
  /** Null where they are too many to be counted. */
  readonly part_count: number | null;
  readonly savings: Readonly<Record<string, { readonly calls: number; readonly saved_micros: number }>>;
}

it(
  `all totals agree with a plain recount in ${histories} histories`,
  async () => {
    const random = dice(seeded(29));
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
    const project = await openProject(18);
    await project.rpc("apply_preset", { p_preset: preset });
    const user = (n: number): string => `user-${n}`;
    const many = async (name: string, calls: readonly object[]): Promise<{ decision?: string }[]> => {
      const answers: { decision?: string }[] = [];
      for (let from = 0; from < calls.length; from += 500)
        answers.push(
          ...(await project.rpc<{ decision?: string }[]>(name, { p_calls: calls.slice(from, from + 500) })),
        );
      return answers;
    };
    await project.sql.query(
      "select public.upsert_account(p_user_id => 'user-' || n, p_plan_id => case when n % 3 = 0 then 'b' else 'a' end) from generate_series(0, $1) n",
      [histories - 1],
    );
    // Some weeks, in steps of some hours that fall on both sides of every midnight.
    let open: { id: string; due: number }[] = [];
    const steps = 40;
    for (let step = 0; step < steps; step++) {
      const moment = new Date(begin + step * 23.3 * 3_600_000).toISOString();
      await project.setClock(moment, true);
      const moved = Array.from({ length: Math.ceil(histories / 40) }, () => [
        user(Math.floor(random() * histories)),
        pick(zones),
      ]);
      await project.sql.query(
        "select public.upsert_account(p_user_id => m ->> 0, p_timezone => m ->> 1) from jsonb_array_elements($1) m",
        [JSON.stringify(moved)],
      );
      // Each history has some ten calls over all.
      const calls = Array.from({ length: Math.ceil(histories / 4) }, (_, n) => ({
        request_id: `call-${step}-${n}`,
        user_id: user(Math.floor(random() * histories)),
        model: pick(["large", "small", "unheard-of"]),
        estimated_tokens: Math.floor(random() * 2_000),
        task_type: pick([null, "chat", "summary"]),
        scope_id: pick([null, "brand-a", "brand-b"]),
        conversation_id: pick([null, "c1", "c2"]),
      }));
      const answers = await many("authorize_usage_many", calls);
      calls.forEach((call, n) => {
        // Most settle at once, some days later, a few never.
        if (answers[n]?.decision !== "block" && random() < 0.97)
          open.push({ id: call.request_id, due: step + (random() < 0.8 ? 0 : Math.floor(random() * 6)) });
      });
      const due = open.filter((call) => call.due <= step || step === steps - 1);
      open = open.filter((call) => !due.includes(call));
      await many(
        "settle_usage_many",
        due.map(({ id }) => {
          const input = Math.floor(random() * 3_000);
          return {
            request_id: id,
            input_tokens: input,
            output_tokens: Math.floor(random() * 1_000),
            metadata: {
              ...(random() < 0.5 ? { cached_input_tokens: Math.floor(input / 3) } : {}),
              ...(random() < 0.3 ? { agent: pick(["planner", "writer"]) } : {}),
            },
          };
        }),
      );
      if (random() < 0.2) await project.rpc("run_maintenance");
    }

    const dimensions = {
      model: "r.settled_model",
      plan: "a.plan_id",
      task_type: "coalesce(r.task_type, '')",
      scope: "coalesce(r.scope_id, '')",
      session: "coalesce(r.conversation_id, '')",
      agent: "coalesce(r.settle_metadata ->> 'agent', '')",
      user: "a.user_id",
    } as const;
    const check = async (): Promise<void> => {
      for (const [from, to] of [
        ["2027-01-01", "2027-03-31"],
        ["2027-01-31", "2027-02-01"],
        ["2027-02-01", "2027-02-28"],
      ] as const)
        for (const [by, expression] of Object.entries(dimensions)) {
          const found = await project.rpc<Costs>("console_costs", {
            p_from: from,
            p_to: to,
            p_step: pick(["day", "week", "month"]),
            p_by: by,
          });
          const { rows } = await project.sql.query<{
            key: string;
            cost: number;
            calls: number;
            tokens: number;
          }>(
            `select ${expression} as key, sum(coalesce(r.cost_micros, 0))::float8 as cost, count(*)::int as calls,
             sum(r.input_tokens + r.output_tokens)::float8 as tokens
           from governance.requests r join governance.accounts a using (account_id)
           where r.status = 'settled' and r.usage_day between $1 and $2 group by 1 order by 2 desc, 4 desc`,
            [from, to],
          );
          const total = (key: "cost" | "calls" | "tokens"): number =>
            rows.reduce((sum, row) => sum + row[key], 0);
          expect([by, from, found.cost_micros, found.calls, found.tokens]).toEqual([
            by,
            from,
            total("cost"),
            total("calls"),
            total("tokens"),
          ]);
          expect(found.periods.reduce((sum, each) => sum + each.cost_micros, 0)).toBe(total("cost"));
          const sums = new Map(rows.map((row) => [row.key, row.cost]));
          if (found.part_count === null)
            // Of very many users those that are shown are some of the dearest, each with all that it cost.
            expect([by, found.parts.map((part) => part.cost_micros)]).toEqual([
              by,
              found.parts.map((part) => sums.get(part.key)),
            ]);
          else if (rows.length <= 100)
            expect([
              by,
              new Map(
                found.parts.filter((part) => part.calls > 0).map((part) => [part.key, part.cost_micros]),
              ),
            ]).toEqual([by, new Map(rows.map((row) => [row.key, row.cost]))]);
          else
            expect([by, found.parts.slice(0, 50).map((part) => part.cost_micros)]).toEqual([
              by,
              rows.slice(0, 50).map((row) => row.cost),
            ]);
        }

      // Watch, of the same calls.
      const watched = await project.rpc<Record<string, number>>("console_overview", { p_minutes: 129_600 });
      expect({
        calls: watched["calls"],
        blocked: watched["blocked"],
        settled_tokens: watched["settled_tokens"],
        cost_micros: watched["cost_micros"],
      }).toEqual(
        await project.one(
          `select count(*)::int as calls, count(*) filter (where decision = 'block')::int as blocked,
           sum(charged_tokens)::float8 as settled_tokens, sum(coalesce(cost_micros, 0))::float8 as cost_micros
         from governance.requests`,
        ),
      );

      // What was saved, call by call.
      const { savings } = await project.rpc<Costs>("console_costs", {
        p_from: "2027-01-01",
        p_to: "2027-12-31",
      });
      expect([
        savings["routing"]?.saved_micros,
        savings["routing"]?.calls,
        savings["caching"]?.calls,
      ]).toEqual(
        Object.values(
          await project.one<Record<string, number>>(
            `select coalesce(sum(x.saved) filter (where x.saved <> 0), 0)::float8 as saved, count(*) filter (where x.saved <> 0)::int as routed,
             (select count(*)::int from governance.requests c where c.status = 'settled' and c.cached_input_tokens > (c.settled_model = 'small')::int
               and c.settled_model <> 'unheard-of') as cached
           from (select governance.cost_micros(governance.price_at(r.requested_model, r.created_at), r.created_at, r.input_tokens,
               r.output_tokens, coalesce(r.settle_metadata, '{}')) - r.cost_micros as saved
             from governance.requests r where r.status = 'settled' and r.requested_model = 'large' and r.settled_model = 'small') x`,
          ),
        ),
      );
    };
    await check();
    for (let more = true; more; ) more = (await project.rpc<{ more: boolean }>("run_maintenance")).more;
    await check();

    // Each user's own page, of a month and in all.
    const { rows } = await project.sql.query<{ off: number; users: number }>(
      `select count(*) filter (where (u.usage ->> 'cost_micros')::bigint <> r.cost or (u.usage ->> 'total_tokens')::bigint <> r.tokens
         or (u.usage ->> 'call_count')::bigint <> r.calls)::int as off, count(*)::int as users
     from governance.accounts a
     cross join lateral (select governance.account_usage_json(a.account_id, null, null, '2027-01-01', '2027-12-31') as usage) u
     cross join lateral (select count(*) as calls, coalesce(sum(q.input_tokens + q.output_tokens), 0) as tokens,
       coalesce(sum(q.cost_micros), 0) as cost from governance.requests q where q.account_id = a.account_id and q.status = 'settled') r`,
    );
    expect(rows[0]).toEqual({ off: 0, users: histories });

    // Where users are too many to be read one by one, those that are shown have the same figures.
    const exact = await project.rpc<Costs>("console_costs", {
      p_from: "2027-01-01",
      p_to: "2027-03-31",
      p_by: "user",
    });
    await project.sql.query(
      "create or replace function governance.most_read_users() returns bigint language sql immutable as 'select 0::bigint'",
    );
    const large = await project.rpc<Costs & { part_count: number | null }>("console_costs", {
      p_from: "2027-01-01",
      p_to: "2027-03-31",
      p_by: "user",
    });
    expect(large).toMatchObject({ part_count: null, cost_micros: exact.cost_micros, calls: exact.calls });
    expect(large.parts.slice(0, 20)).toEqual(exact.parts.slice(0, 20));
    await project.close();
  },
  120_000 + 300 * histories,
);
