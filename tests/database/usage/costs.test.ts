/**
 * Random calls of users in many zones, with a price that changes, months that end and late settlements: every figure of
 * the costs desk is a plain sum over the calls, before and after days are aggregated.
 */
import { expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject, type Project } from "../../support/project.ts";
import { sized } from "../../support/size.ts";

interface Costs {
  readonly cost_micros: number;
  readonly calls: number;
  readonly tokens: number;
  readonly before: { readonly cost_micros: number; readonly calls: number; readonly tokens: number };
  readonly periods: readonly { readonly from: string; readonly to: string; readonly cost_micros: number }[];
  readonly parts: readonly { readonly key: string; readonly cost_micros: number; readonly calls: number }[];
}

/** What the desk groups by, as a plain expression over the calls. */
const dimensions = {
  model: "r.settled_model",
  provider: "coalesce(governance.provider_of(r.settled_model, governance.now()), '')",
  plan: "coalesce(a.plan_id, '')",
  task_type: "coalesce(r.task_type, '')",
  scope: "coalesce(r.scope_id, '')",
  user: "a.user_id",
} as const;
const zones = ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "America/New_York"];

async function history(project: Project, calls: number, random: () => number): Promise<void> {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  let at = Date.parse("2027-01-28T20:00:00Z");
  const open: string[] = [];
  const settle = async (id: string): Promise<void> => {
    await project.rpc("settle_usage", {
      p_request_id: id,
      p_input_tokens: Math.floor(random() * 2_000),
      p_output_tokens: Math.floor(random() * 2_000),
    });
  };
  for (let n = 0; n < calls; n++) {
    at += Math.floor(random() * (7 * 86_400_000)) / (calls / 10);
    await project.setClock(new Date(at).toISOString(), true);
    const user = `user-${Math.floor(random() * 8)}`;
    if (random() < 0.1) await project.rpc("upsert_account", { p_user_id: user, p_timezone: pick(zones) });
    const id = `call-${n}`;
    const answer = await project.rpc<{ decision: string }>("authorize_usage", {
      p_request_id: id,
      p_user_id: user,
      p_model: pick(["gpt-4o", "gpt-4o-mini", "claude-unheard-of"]),
      p_estimated_tokens: 10,
      p_task_type: pick([null, "chat", "summary"]),
      p_scope_id: pick([null, "brand-a", "brand-b"]),
    });
    if (answer.decision === "block") continue;
    open.push(id);
    // Most settle at once, some much later.
    if (random() < 0.8) await settle(open.splice(Math.floor(random() * open.length), 1)[0] as string);
    if (n === Math.floor(calls / 2))
      await project.sql.query(
        `insert into governance.prices (provider, model, input_micros_per_million, output_micros_per_million, currency, effective_from)
         select 'openai', 'gpt-4o', 9000000, 9000000, c.currency, governance.now() from governance.active_config c`,
      );
  }
  for (const id of open) await settle(id);
}

it("each figure is a plain sum over the calls, whatever the range, the step and what it is made of", async () => {
  const random = dice(7);
  const project = await openProject(18);
  await history(project, sized(150, 5_000), random);
  const check = async (): Promise<void> => {
    for (const [from, to] of [
      ["2027-01-25", "2027-04-30"],
      ["2027-01-31", "2027-01-31"],
      ["2027-02-01", "2027-02-28"],
    ] as const)
      for (const [by, expression] of Object.entries(dimensions)) {
        const step = (["day", "week", "month"] as const)[Math.floor(random() * 3)] ?? "day";
        const found = await project.rpc<Costs>("console_costs", {
          p_from: from,
          p_to: to,
          p_step: step,
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
           where r.status = 'settled' and r.usage_day between $1 and $2 group by 1 order by 2 desc, 4 desc, 1`,
          [from, to],
        );
        const total = (key: "cost" | "calls" | "tokens"): number =>
          rows.reduce((sum, row) => sum + row[key], 0);
        expect([by, found.cost_micros, found.calls, found.tokens]).toEqual([
          by,
          total("cost"),
          total("calls"),
          total("tokens"),
        ]);
        expect(
          new Map(found.parts.filter(({ calls }) => calls > 0).map(({ key, cost_micros: c }) => [key, c])),
        ).toEqual(new Map(rows.map(({ key, cost }) => [key, cost])));
        expect(found.periods.reduce((sum, each) => sum + each.cost_micros, 0)).toBe(total("cost"));
        expect([found.periods[0]?.from, found.periods.at(-1)?.to]).toEqual([from, to]);
      }
  };
  await check();
  for (let more = true; more; ) more = (await project.rpc<{ more: boolean }>("run_maintenance")).more;
  await check();

  // Narrowed to one user and one model, it is theirs alone.
  const { rows } = await project.sql.query<{ cost: number }>(
    `select coalesce(sum(r.cost_micros), 0)::float8 as cost from governance.requests r join governance.accounts a using (account_id)
     where r.status = 'settled' and a.user_id = 'user-3' and r.settled_model = 'gpt-4o'`,
  );
  const narrowed = await project.rpc<Costs>("console_costs", {
    p_from: "2027-01-01",
    p_to: "2027-12-31",
    p_filter: { user: "user-3", model: "gpt-4o" },
  });
  expect(narrowed.cost_micros).toBe(rows[0]?.cost);
});

it.each<[string, Record<string, unknown>]>([
  ["a range that ends before it begins", { p_from: "2027-02-01", p_to: "2027-01-01" }],
  ["a range without an end", { p_from: "2027-02-01", p_to: "infinity" }],
  ["an unknown step", { p_step: "hour" }],
  ["an unknown dimension", { p_by: "colour" }],
  ["an unknown filter", { p_filter: { colour: "red" } }],
  ["a filter of the wrong shape", { p_filter: { model: 7 } }],
])("%s is refused", async (_, parameters) => {
  const project = await openProject(18);
  expect(
    await project.refusal("console_costs", { p_from: "2027-01-01", p_to: "2027-01-31", ...parameters }),
  ).toMatchObject({ code: "PT400", hint: "invalid_argument" });
});
