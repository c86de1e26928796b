/**
 * Random calls over months: for every time and filter, Watch's figures, chart, rankings and list are plain sums over the
 * same calls, before and after they are added up, and after what is old was thinned.
 */
import { beforeAll, expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject, type Project } from "../../support/project.ts";
import { sized } from "../../support/size.ts";

interface Overview {
  readonly from: string;
  readonly to: string;
  readonly step_minutes: number;
  readonly calls: number;
  readonly blocked: number;
  readonly warned: number;
  readonly settled_tokens: number;
  readonly cost_micros: number;
  readonly active_users: number | null;
  readonly steps: readonly Readonly<Record<string, number | string>>[];
  readonly reasons: readonly { readonly reason: string; readonly calls: number }[];
  readonly top_users: readonly { readonly user_id: string; readonly tokens: number }[];
  readonly most_stopped: readonly { readonly user_id: string; readonly calls: number }[];
}
interface Call {
  readonly decision_id: number;
  readonly at: string;
  readonly kind: string;
}
type Filter = Readonly<Record<string, string>>;

const now = "2027-06-15T13:37:20Z";
const preset = {
  name: "figures",
  currency: "GBP",
  // Figures outlive the calls; here the calls must be there to be counted.
  settings: { decision_retention_days: 400 },
  default_plan: "p",
  plans: [{ plan_id: "p", monthly_allowance: 400_000, daily_limit: 6_000, warn_at: [80] }],
  prices: ["gpt-4o", "gpt-4o-mini"].map((model) => ({
    provider: "openai",
    model,
    input_micros_per_million: 2_000_000,
    output_micros_per_million: 7_000_000,
    currency: "GBP",
    effective_from: "2026-01-01T00:00:00Z",
  })),
  rules: [
    {
      rule_name: "too large",
      rule_type: "cost",
      priority: 1,
      conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 1_800 }] },
      action: { block: { reason: "token_hogging", message: "No" } },
    },
    {
      rule_name: "smaller",
      rule_type: "routing",
      priority: 2,
      conditions: { all: [{ fact: "estimated_tokens", op: "<", value: 300 }] },
      action: { route: { model: "gpt-4o-mini" } },
    },
  ],
};

let project: Project;
beforeAll(async () => {
  project = await openProject(18);
  await project.rpc("apply_preset", { p_preset: preset });
  const random = dice(11);
  const calls = sized(180, 6_000);
  const end = Date.parse(now);
  const open: string[] = [];
  for (let n = 0; n < calls; n++) {
    // Ever denser towards now: as much in the last hour as in the last months.
    const age = 150 * 86_400_000 * ((calls - n) / calls) ** 6;
    await project.setClock(new Date(end - age).toISOString(), true);
    const id = `call-${n}`;
    const answer = await project.rpc<{ decision: string }>("authorize_usage", {
      p_request_id: id,
      p_user_id: `user-${Math.floor(random() ** 2 * 9)}`,
      p_model: random() < 0.6 ? "gpt-4o" : "gpt-4o-mini",
      p_estimated_tokens: Math.floor(random() * 2_000),
    });
    if (answer.decision === "block") continue;
    if (random() < 0.05) await project.rpc("release_usage", { p_request_id: id });
    else open.push(id);
    // Most settle at once, some much later.
    while (open.length > 0 && random() < 0.55)
      await project.rpc("settle_usage", {
        p_request_id: open.splice(Math.floor(random() * open.length), 1)[0] as string,
        p_input_tokens: Math.floor(random() * 900),
        p_output_tokens: Math.floor(random() * 900),
      });
  }
  await project.setClock(now, true);
});

/** Where a filter stands, in plain SQL over a call `r`. */
function condition(filter: Filter): string {
  const parts = Object.entries(filter).map(([key, value]) =>
    key === "user_id"
      ? `a.user_id = '${value}'`
      : key === "model"
        ? `'${value}' in (r.model, r.requested_model, r.settled_model)`
        : `r.${key} = '${value}'`,
  );
  return parts.length === 0 ? "true" : parts.join(" and ");
}

async function everyCall(filter: Filter, from: string, to: string): Promise<Call[]> {
  const calls: Call[] = [];
  for (let before: number | null = null; ; ) {
    const page: { calls: Call[]; next_before_decision_id: number | null } = await project.rpc(
      "console_calls_before",
      { p_before_decision_id: before, p_limit: 70, p_filter: filter, p_from: from, p_to: to },
    );
    calls.push(...page.calls);
    before = page.next_before_decision_id;
    if (before === null) return calls;
  }
}

async function check(filter: Filter, parameters: Record<string, unknown>): Promise<void> {
  const found = await project.rpc<Overview>("console_overview", { p_filter: filter, ...parameters });
  const where = condition(filter);
  const say = JSON.stringify({ filter, parameters });
  const { rows } = await project.sql.query<Record<string, number>>(
    `select count(*) filter (where r.created_at >= $1 and r.created_at < $2)::int as calls,
       count(*) filter (where r.created_at >= $1 and r.created_at < $2 and r.decision = 'block')::int as blocked,
       count(*) filter (where r.created_at >= $1 and r.created_at < $2 and r.decision = 'warn')::int as warned,
       coalesce(sum(r.charged_tokens) filter (where r.status = 'settled' and r.ended_at >= $1 and r.ended_at < $2), 0)::float8 as settled_tokens,
       coalesce(sum(r.cost_micros) filter (where r.status = 'settled' and r.ended_at >= $1 and r.ended_at < $2), 0)::float8 as cost_micros
     from governance.requests r join governance.accounts a using (account_id) where ${where}`,
    [found.from, found.to],
  );
  const { calls, blocked, warned, settled_tokens, cost_micros } = found;
  expect({ say, calls, blocked, warned, settled_tokens, cost_micros }).toEqual({ say, ...rows[0] });
  const sum = (key: string): number => found.steps.reduce((total, step) => total + Number(step[key]), 0);
  expect([say, sum("calls"), sum("settled_tokens"), sum("cost_micros"), sum("blocked_calls")]).toEqual([
    say,
    calls,
    settled_tokens,
    cost_micros,
    blocked,
  ]);
  expect(found.steps.length).toBeLessThanOrEqual(125);
  expect([say, found.reasons.reduce((total, each) => total + each.calls, 0)]).toEqual([say, blocked]);
  expect([say, found.top_users.reduce((total, each) => total + each.tokens, 0)]).toEqual([
    say,
    settled_tokens,
  ]);
  const stopped = await project.sql.query(
    `select a.user_id, count(*)::int as calls from governance.requests r join governance.accounts a using (account_id)
     where ${where} and r.decision = 'block' and r.created_at >= $1 and r.created_at < $2 group by 1 order by 2 desc, 1`,
    [found.from, found.to],
  );
  expect([say, found.most_stopped.map(({ user_id, calls: n }) => ({ user_id, calls: n }))]).toEqual([
    say,
    stopped.rows,
  ]);
  // The list has the same calls, one row each.
  const list = await everyCall(filter, found.from, found.to);
  expect([say, new Set(list.map(({ decision_id: id }) => id)).size, list.length]).toEqual([
    say,
    calls,
    calls,
  ]);
  expect(list.map(({ decision_id: id }) => id)).toEqual(
    list.map(({ decision_id: id }) => id).toSorted((a, b) => b - a),
  );
}

const filters: readonly Filter[] = [
  {},
  { user_id: "user-0" },
  { decision: "block" },
  { decision: "warn" },
  { reason: "token_hogging" },
  { model: "gpt-4o-mini" },
  { user_id: "user-1", model: "gpt-4o", decision: "allow" },
  { user_id: "nobody" },
];
const times: readonly Record<string, unknown>[] = [
  ...[5, 60, 360, 1_440, 10_080, 43_200, 129_600, 525_600].map((minutes) => ({ p_minutes: minutes })),
  // A bar of each chart: a day, two hours of last week, an hour long ago, a week.
  { p_from: "2027-06-10T00:00:00Z", p_to: "2027-06-11T00:00:00Z" },
  { p_from: "2027-06-11T10:00:00Z", p_to: "2027-06-11T12:00:00Z" },
  { p_from: "2027-03-01T10:00:00Z", p_to: "2027-03-01T11:00:00Z" },
  { p_from: "2027-05-31T00:00:00Z", p_to: "2027-06-07T00:00:00Z" },
];

it("figures, chart, rankings and list are plain sums over the same calls, whatever time and filter", async () => {
  for (const filter of filters) for (const time of times) await check(filter, time);
  for (let more = true; more; ) more = (await project.rpc<{ more: boolean }>("run_maintenance")).more;
  for (const filter of filters.slice(0, 4)) for (const time of times) await check(filter, time);
});

it("steps fit the time: at most 125 from an hour to a year", async () => {
  const steps = async (minutes: number): Promise<number> =>
    (await project.rpc<Overview>("console_overview", { p_minutes: minutes })).step_minutes;
  expect(await Promise.all([60, 360, 1_440, 10_080, 43_200, 129_600, 525_600].map(steps))).toEqual([
    1, 5, 15, 120, 1_440, 1_440, 10_080,
  ]);
});

it("a call's row says where the call is now, and stays where it was decided", async () => {
  await project.rpc("authorize_usage", {
    p_request_id: "late",
    p_user_id: "late",
    p_model: "gpt-4o",
    p_estimated_tokens: 500,
  });
  const row = async (): Promise<unknown> =>
    (await project.rpc<{ calls: Call[] }>("console_calls_before", { p_filter: { user_id: "late" } }))
      .calls[0];
  const held = await row();
  expect(held).toMatchObject({ kind: "authorized", tokens: 500, cost_micros: null });
  await project.setClock("2027-06-15T14:00:00Z", true);
  await project.rpc("settle_usage", { p_request_id: "late", p_input_tokens: 100, p_output_tokens: 50 });
  expect(await row()).toMatchObject({
    kind: "settled",
    tokens: 150,
    cost_micros: 550,
    at: (held as Call).at,
    decision_id: (held as Call).decision_id,
  });
  await project.setClock(now, true);
});

it.each<[string, string, Record<string, unknown>]>([
  ["more than a year", "console_overview", { p_minutes: 600_000 }],
  ["no minutes", "console_overview", { p_minutes: 0 }],
  ["half a stretch", "console_overview", { p_from: now }],
  ["a stretch that ends before it begins", "console_overview", { p_from: now, p_to: "2027-01-01T00:00:00Z" }],
  ["a stretch without an end", "console_overview", { p_from: now, p_to: "infinity" }],
  ["an unknown filter", "console_overview", { p_filter: { colour: "red" } }],
  ["kinds, which calls do not have", "console_overview", { p_filter: { kinds: ["settled"] } }],
  ["kinds in the list", "console_calls_before", { p_filter: { kinds: ["settled"] } }],
  [
    "a list that ends before it begins",
    "console_calls_before",
    { p_from: now, p_to: "2027-01-01T00:00:00Z" },
  ],
])("%s is refused", async (_, name, parameters) => {
  expect(await project.refusal(name, parameters)).toMatchObject({ code: "PT400", hint: "invalid_argument" });
});
