/** What is set: who hears of which alerts, when an alert would have been raised, and what is behind one. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject, type Project } from "../../support/project.ts";
import { seeded, sized } from "../../support/size.ts";

let project: Project;
beforeAll(async () => {
  project = await openProject(18);
});
afterAll(() => project?.close());

const save = (kind: string, key: string, record: Record<string, unknown> | null) =>
  project.rpc<{ version: number }>("console_save_config", {
    p_command_id: randomUUID(),
    p_kind: kind,
    p_key: key,
    p_record: record === null ? "null" : JSON.stringify(record),
    p_reason: "a test",
    p_operator: "dana",
  });
interface Raised {
  readonly since: string | null;
  readonly since_at?: string | null;
  readonly is_part?: boolean;
  readonly times: number;
  readonly times_at_most: number;
  readonly users: number | null;
  readonly latest: readonly { readonly day: string; readonly key: string; readonly threshold: number }[];
}
interface Effect {
  readonly alerts?: number;
  readonly alert_kinds?: Record<string, number>;
  readonly raised?: Raised | null;
  readonly raised_now?: Raised | null;
}
const preview = async (
  kind: string,
  key: string,
  record: Record<string, unknown> | null,
): Promise<Effect> => {
  const { problem, effects } = await project.rpc<{ problem: unknown; effects: Effect[] }>(
    "console_preview_config",
    { p_changes: JSON.stringify([{ kind, key, record, expected_version: null }]) },
  );
  expect(problem).toBeNull();
  return effects[0] ?? {};
};

interface Message {
  readonly channel: string;
  readonly audience: string;
  readonly recipients: readonly string[];
  readonly payload: { readonly kind: string; readonly severity: string };
}
/** Raises these, and answers which message goes where. */
async function told(...alerts: readonly [kind: string, severity: string][]): Promise<string[]> {
  await project.sql.query("delete from governance.notifications; delete from governance.alert_events");
  for (const [kind, severity] of alerts)
    await project.sql.query(
      "select governance.raise_alert(null, null, $1, $2, 'Something', null, null, '', '{}', governance.now())",
      [kind, severity],
    );
  await project.sql.query("select governance.queue_notifications(governance.now())");
  const messages = await project.rpc<Message[]>("claim_notifications", { p_limit: 500 });
  return messages
    .filter(({ audience }) => audience === "operators")
    .map(({ channel, recipients, payload }) =>
      [`${payload.kind}`, payload.severity, channel, ...recipients.toSorted()].join(" "),
    )
    .toSorted();
}

it("operators hear by the routes that are for an alert, each message once; what none is for goes the usual way", async () => {
  await save("setting", "operator_emails", { key: "operator_emails", value: ["ops@example.com"] });
  const raised: [string, string][] = [
    ["upkeep_late", "critical"],
    ["stripe_dispute", "warning"],
    ["unknown_price", "warning"],
    // A user's own: no operator hears of it unless a route names it.
    ["daily_limit_95", "critical"],
  ];
  expect(await told(...raised)).toEqual([
    "stripe_dispute warning email ops@example.com",
    "unknown_price warning email ops@example.com",
    "upkeep_late critical email ops@example.com",
  ]);
  await save("route", "night", { route: "night", severity: "critical", channels: ["pager", "email"] });
  await save("route", "money", {
    route: "money",
    kinds: ["stripe_dispute", "budget"],
    channels: ["email"],
    emails: ["finance@example.com", "cfo@example.com"],
  });
  await save("route", "limits", { route: "limits", kinds: ["daily_limit"], channels: ["slack"] });
  await save("route", "lead", {
    route: "lead",
    severity: "warning",
    channels: ["email"],
    emails: ["lead@example.com"],
  });
  expect(await told(...raised, ["stripe_dispute", "critical"])).toEqual([
    "daily_limit_95 critical slack",
    "stripe_dispute critical email cfo@example.com finance@example.com lead@example.com ops@example.com",
    "stripe_dispute critical pager",
    "stripe_dispute warning email cfo@example.com finance@example.com lead@example.com",
    "unknown_price warning email lead@example.com",
    "upkeep_late critical email lead@example.com ops@example.com",
    "upkeep_late critical pager",
  ]);
  // What a route would have told of is known before it is saved.
  expect(
    await preview("route", "money", { route: "money", severity: "critical", channels: ["slack"] }),
  ).toMatchObject({
    alerts: 2,
    alert_kinds: { upkeep_late: 1, stripe_dispute: 1 },
  });
  // A route that is no more leaves its messages to the operators' addresses.
  await project.sql.query("update governance.notifications set due_at = governance.now(), status = 'queued'");
  for (const name of ["money", "lead", "limits", "night"]) await save("route", name, null);
  const again = await project.rpc<Message[]>("claim_notifications", { p_limit: 500, p_channel: "email" });
  expect(new Set(again.flatMap(({ recipients }) => recipients))).toEqual(new Set(["ops@example.com"]));
});

it.each<[string, Record<string, unknown>, string]>([
  ["a severity that is none", { severity: "loud" }, "settings.alert_routes[0].severity"],
  ["a kind that is none", { kinds: ["budgets"] }, "settings.alert_routes[0].kinds"],
  ["kinds that are no list", { kinds: "budget" }, "settings.alert_routes[0].kinds"],
  ["no channel", { channels: [] }, "settings.alert_routes[0].channels"],
  ["a channel that is none", { channels: ["E-mail"] }, "settings.alert_routes[0].channels"],
  ["an address that is none", { emails: ["ops"] }, "settings.alert_routes[0].emails"],
  ["a key that nobody knows", { severities: ["critical"] }, "settings.alert_routes[0]"],
])("a route with %s is refused", async (_, wrong, path) => {
  expect(
    await project.refusal("console_save_config", {
      p_command_id: randomUUID(),
      p_kind: "route",
      p_key: "x",
      p_record: JSON.stringify({ route: "x", channels: ["email"], ...wrong }),
      p_reason: "a test",
    }),
  ).toMatchObject({ hint: "invalid_preset", details: path });
});

const dayBefore = (at: string, back: number): string =>
  new Date(Date.parse(at) - back * 86_400_000).toISOString().slice(0, 10);
const periodOf = (period: string, of: string): string => {
  if (period === "day") return of;
  if (period === "month") return of.slice(0, 7);
  if (period === "year") return of.slice(0, 4);
  const at = new Date(`${of}T00:00:00Z`);
  at.setUTCDate(at.getUTCDate() - ((at.getUTCDay() + 6) % 7));
  return at.toISOString().slice(0, 10);
};

it.each([
  "2026-11-15T12:00:00Z",
  // The last moments of a month, a leap day, a year, and a month after a short one.
  "2027-01-31T23:59:59Z",
  "2028-02-29T23:59:59Z",
  "2026-12-31T23:59:59Z",
  "2027-03-31T00:00:00Z",
  // The first of a year whose first days are of a week of the year before.
  "2027-01-01T00:00:00Z",
])(
  "the preview of a budget says when it would have been raised, as a plain recount does: at %s",
  async (moment) => {
    const random = dice(seeded(Date.parse(moment) / 1000));
    const day = (back: number): string => dayBefore(moment, back);
    await project.setClock(moment, true);
    await project.sql.query("delete from governance.usage_daily where model like 'm-%'");
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
    const users = ["pia", "quinn", "rosa"];
    for (const user of users) await project.rpc("upsert_account", { p_user_id: user, p_plan_id: "pro" });
    const rows = Array.from({ length: 160 }, (_, n) => ({
      user: users[n % 3] as string,
      day: day(Math.floor(n / 3) * 2 + Math.floor(random() * 2)),
      model: pick(["m-one", "m-two"]),
      tokens: Math.floor(random() * 1000),
      cost: Math.floor(random() * 1000),
    }));
    await project.sql.query(
      `insert into governance.usage_daily (account_id, day, model, calls, charged_tokens, cost_micros, first_activity_at,
       last_activity_at)
     select a.account_id, x.day, x.model, 1, sum(x.tokens), sum(x.cost), now(), now()
     from jsonb_to_recordset($1) x("user" text, day date, model text, tokens bigint, cost bigint)
     join governance.accounts a on a.user_id = x."user" group by 1, 2, 3`,
      [JSON.stringify(rows)],
    );
    for (let n = 0; n < sized(30, 1_000); n++) {
      const metric = pick(["tokens", "cost_micros"]);
      const scope = pick(["all", "user", "model:m-one", "plan:pro"]);
      const period = pick(["day", "week", "month", "year"]);
      const budget = random() < 0.5 ? Math.ceil(random() * 20_000) : null;
      const thresholds = [
        ...new Set(
          Array.from({ length: 1 + Math.floor(random() * 3) }, () =>
            Math.ceil(random() * (budget ? 110 : 15_000)),
          ),
        ),
      ];
      const alert = {
        alert_name: "tried",
        metric,
        scope,
        period,
        thresholds,
        ...(budget === null ? {} : { budget }),
      };
      const { effect } = await project.one<{ effect: Effect }>(
        "select governance.alert_effect($1, null, $2) as effect",
        [JSON.stringify(alert), moment],
      );
      const { raised } = effect;
      const since = day(scope === "user" ? 29 : 89);
      const sums = new Map<string, number>();
      const expected: { day: string; threshold: number; user: string; passed: number }[] = [];
      const days = Map.groupBy(
        rows.filter(({ model }) => scope !== "model:m-one" || model === "m-one"),
        (row) => `${row.day} ${scope === "user" ? row.user : ""}`,
      );
      for (const [key, used] of [...days].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
        const [at = "", user = ""] = key.split(" ");
        if (at < (period === "year" ? `${since.slice(0, 4)}-01-01` : "")) continue;
        const sumKey = `${user} ${periodOf(period, at)}`;
        const before = sums.get(sumKey) ?? 0;
        const after =
          before + used.reduce((sum, each) => sum + (metric === "tokens" ? each.tokens : each.cost), 0);
        sums.set(sumKey, after);
        const passed = thresholds.filter((each) => {
          const amount = budget === null ? each : (each * budget) / 100;
          return before < amount && after >= amount;
        });
        if (passed.length > 0 && at >= since)
          expected.push({ day: at, threshold: Math.max(...passed), user, passed: passed.length });
      }
      const latest = expected.toSorted((a, b) =>
        a.day < b.day ? 1 : a.day > b.day ? -1 : b.threshold - a.threshold,
      );
      expect([
        JSON.stringify(alert),
        raised?.times,
        raised?.times_at_most,
        raised?.users,
        raised?.since,
      ]).toEqual([
        JSON.stringify(alert),
        expected.length,
        expected.reduce((sum, { passed }) => sum + passed, 0),
        scope === "user" ? new Set(expected.map(({ user }) => user)).size : null,
        since,
      ]);
      expect(raised?.latest.map(({ day: at, threshold }) => [at, threshold])).toEqual(
        latest.slice(0, 10).map(({ day: at, threshold }) => [at, threshold]),
      );
    }
    // Beside how it is now; retiring it shows that alone.
    await save("alert", "tried", { alert_name: "tried", metric: "tokens", period: "day", thresholds: [1] });
    const { raised, raised_now: now } = await preview("alert", "tried", {
      alert_name: "tried",
      metric: "tokens",
      period: "day",
      thresholds: [1_000_000],
    });
    expect(raised?.times).toBe(0);
    expect(now?.times).toBeGreaterThan(20);
    expect((await preview("alert", "tried", null)).raised).toBeNull();
    await save("alert", "tried", null);
    await project.setClock(null);
  },
);

it("the preview of what calls reach is read from the ledger: one call, a balance, a debt, an hour", async () => {
  await project.rpc("upsert_account", { p_user_id: "uma", p_plan_id: "business" });
  for (const [n, tokens] of [60_000, 80_000, 300].entries()) {
    await project.rpc("authorize_usage", {
      p_request_id: `uma-${n}`,
      p_user_id: "uma",
      p_model: "gpt-4o",
      p_estimated_tokens: 100,
    });
    await project.rpc("settle_usage", {
      p_request_id: `uma-${n}`,
      p_input_tokens: tokens,
      p_output_tokens: 0,
    });
  }
  const times = async (
    metric: string,
    thresholds: number[],
  ): Promise<[number | undefined, number | null | undefined]> => {
    const period = metric === "spike" ? "hour" : "day";
    const { raised } = await preview("alert", "seen", {
      alert_name: "seen",
      metric,
      scope: "user",
      period,
      thresholds,
    });
    return [raised?.times, raised?.users];
  };
  expect(await times("operation_tokens", [50_000])).toEqual([1, 1]);
  expect(await times("operation_tokens", [50_000, 70_000])).toEqual([2, 1]);
  expect(await times("operation_tokens", [80_000])).toEqual([0, 0]);
  expect(await times("balance", [4_900_000])).toEqual([1, 1]);
  expect(await times("balance", [5_000_001])).toEqual([0, 0]);
  expect(await times("debt", [1])).toEqual([0, 0]);
  expect(await times("spike", [5])).toEqual([1, 1]);
  expect(await times("spike", [1_000_000])).toEqual([0, 0]);
});

it("of very many calls and users the preview reads as many as of few, and says what it looked at", async () => {
  const look = async (metric: string, thresholds: number[]) => {
    const { raised } = await preview("alert", "seen", {
      alert_name: "seen",
      metric,
      scope: "user",
      period: metric === "spike" ? "hour" : "day",
      thresholds,
    });
    return raised;
  };
  await project.sql.query("delete from governance.usage_daily where model like 'm-%'");
  for (let left = 1; left > 0; )
    left = (await project.one<{ left: number }>("select governance.follow_events(1000) as left")).left;
  await project.rpc("run_maintenance");
  const reads: readonly (readonly [string, number[]])[] = [
    ["tokens", [50_000]],
    ["cost_micros", [1]],
    ["spike", [5]],
    ["operation_tokens", [50_000]],
  ];
  const all = [];
  for (const [metric, thresholds] of reads) all.push(await look(metric, thresholds));
  expect(all.map((each) => [each?.is_part, each?.since_at])).toEqual(reads.map(() => [false, null]));
  expect(all.every((each) => (each?.times ?? 0) > 0)).toBe(true);
  const limit = (name: string, type: string, value: number): Promise<unknown> =>
    project.sql.query(
      `create or replace function governance.${name}() returns ${type} language sql immutable as 'select ${value}::${type}'`,
    );
  await limit("most_read_users", "bigint", 0);
  await limit("most_looked_back", "int", 3);
  try {
    for (const [place, [metric, thresholds]] of reads.entries()) {
      const part = await look(metric, thresholds);
      // The few users of this project are among those that used most.
      expect([metric, part?.times, part?.users]).toEqual([metric, all[place]?.times, all[place]?.users]);
      expect(part?.is_part).toBe(metric !== "operation_tokens");
      expect(typeof part?.since_at).toBe(
        metric === "spike" || metric === "operation_tokens" ? "string" : "object",
      );
    }
  } finally {
    await limit("most_read_users", "bigint", 50_000);
    await limit("most_looked_back", "int", 20_000);
  }
});

interface Causes {
  readonly users: readonly { readonly user_id: string; readonly calls: number }[];
  readonly models: readonly { readonly model: string; readonly cost_micros: number }[];
  readonly rules: readonly { readonly rule_name: string; readonly calls: number }[];
}
it("a budget and a spike lead to the users, models and rules behind them", async () => {
  const call = async (user: string, model: string, tokens: number): Promise<void> => {
    const { request_id: id } = await project.rpc<{ request_id: string }>("authorize_usage", {
      p_request_id: randomUUID(),
      p_user_id: user,
      p_model: model,
      p_estimated_tokens: 10,
    });
    await project.rpc("settle_usage", { p_request_id: id, p_input_tokens: tokens, p_output_tokens: 0 });
  };
  await project.sql.query("delete from governance.usage_daily where model like 'm-%'");
  await project.rpc("save_rule", {
    p_command_id: randomUUID(),
    p_rule: JSON.stringify({
      rule_name: "dear_model_is_seen",
      rule_type: "limit",
      priority: 1,
      conditions: { all: [{ fact: "model", op: "=", value: "gpt-4o" }] },
      action: { warn: { message: "Dear" } },
    }),
    p_reason: "a test",
    p_operator: "dana",
  });
  await project.rpc("upsert_account", { p_user_id: "vera", p_plan_id: "business" });
  await call("vera", "gpt-4o", 90_000);
  await call("vera", "gpt-4o", 90_000);
  await call("will", "gpt-4o-mini", 500);
  const raise = async (
    kind: string,
    user: string | null,
    period: string,
    details: object,
  ): Promise<number> => {
    await project.sql.query(
      `select governance.raise_alert(null, (select account_id from governance.accounts where user_id = $2), $1,
         'critical', 'x', 75, 80, $3, $4, governance.now())`,
      [kind, user, period, JSON.stringify(details)],
    );
    return Number(
      (await project.one<{ id: string }>("select max(alert_event_id) as id from governance.alert_events")).id,
    );
  };
  const causes = (id: number) => project.rpc<Causes>("console_alert_causes", { p_alert_event_id: id });
  const today = new Date().toISOString().slice(0, 10);
  const budget = await causes(
    await raise("budget", null, today, {
      metric: "cost_micros",
      scope: "all",
      period: "day",
      amount: 1,
      budget: 1,
    }),
  );
  expect([budget.users[0]?.user_id, budget.models[0]?.model, budget.rules[0]]).toEqual([
    "vera",
    "gpt-4o",
    expect.objectContaining({ rule_name: "dear_model_is_seen", calls: 2 }),
  ]);
  const spike = await causes(await raise("usage_spike", "vera", "x", { usual_tokens: 1 }));
  expect([spike.users, spike.models, spike.rules]).toMatchObject([
    [{ user_id: "vera", calls: 2 }],
    [{ model: "gpt-4o" }],
    [{ rule_name: "dear_model_is_seen" }],
  ]);
  // What has no calls behind it says so.
  expect(await causes(await raise("upkeep_late", null, "x", {}))).toMatchObject({
    users: [],
    models: [],
    rules: [],
  });
  expect(await project.refusal("console_alert_causes", { p_alert_event_id: 999_999 })).toMatchObject({
    hint: "not_found",
  });
});
