/**
 * Budgets against a plain model, while alerts are edited, taken out and put back, users use in many zones, and the clock
 * goes over ends of days, weeks, months and years: each is raised when it must be, once, and the preview says the same.
 */
import { expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { ZoneModel } from "../../support/models/zone-model.ts";
import { openProject, type Project } from "../../support/project.ts";
import { seeded, sized } from "../../support/size.ts";

const hour = 3_600_000;
const zones = [
  "UTC",
  "America/Los_Angeles",
  "Europe/London",
  "Asia/Kolkata",
  "America/St_Johns",
  "Pacific/Kiritimati",
  "Etc/GMT+12",
  "Australia/Lord_Howe",
];
/** Before the end of a year, of February with and without its 29th, and of months in which clocks change. */
const starts = [
  "2026-12-29T20:00:00Z",
  "2027-02-26T09:00:00Z",
  "2028-02-27T23:30:00Z",
  "2027-03-27T12:00:00Z",
  "2027-10-30T01:00:00Z",
];
const models = ["m-one", "m-two"];
const plans = ["p", "q"];

interface Alert {
  readonly alert_name: string;
  readonly metric: "tokens" | "cost_micros";
  readonly scope: string;
  readonly period: "day" | "week" | "month" | "year";
  readonly budget?: number;
  readonly thresholds: readonly number[];
}
interface Raised {
  readonly alert: string;
  readonly user: string;
  readonly key: string;
  readonly threshold: number;
}

/** What a date's period is called. */
function keyOf(period: Alert["period"], day: string): string {
  if (period === "day") return day;
  if (period !== "week") return day.slice(0, period === "month" ? 7 : 4);
  // The week of ISO 8601 belongs to the year of its Thursday.
  const thursday = new Date(`${day}T00:00:00Z`);
  thursday.setUTCDate(thursday.getUTCDate() + 3 - ((thursday.getUTCDay() + 6) % 7));
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  const week = Math.floor((thursday.getTime() - first) / (7 * 24 * hour)) + 1;
  return `${thursday.getUTCFullYear()}-W${String(week).padStart(2, "0")}`;
}

const dateOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
/** Dates that somebody may still be in, from the one moment to the other: UTC-12 is the last, UTC+14 the first. */
function openDays(sinceMs: number, nowMs: number): string[] {
  const days: string[] = [];
  for (let ms = Date.parse(dateOf(sinceMs - 13 * hour)); ms <= nowMs + 14 * hour; ms += 24 * hour)
    days.push(dateOf(ms));
  return days;
}

const preset = (alerts: readonly Alert[]) => ({
  name: "budgets",
  currency: "usd",
  default_plan: "p",
  plans: plans.map((id) => ({ plan_id: id, name: id, monthly_allowance: 1_000_000_000 })),
  // A token costs two micro-units.
  prices: models.map((model) => ({
    provider: "x",
    model,
    input_micros_per_million: 2_000_000,
    output_micros_per_million: 2_000_000,
    effective_from: "2024-01-01",
  })),
  alerts,
});
const raisedSoFar = async (project: Project): Promise<Raised[]> =>
  (
    await project.sql.query<Raised>(
      `select k.alert_name as alert, coalesce(a.user_id, '') as user, e.period_key as key, e.threshold::float8
       from governance.alert_events e join governance.cost_alerts k using (alert_id)
       left join governance.accounts a using (account_id) where e.kind in ('budget', 'user_budget')`,
    )
  ).rows;
const sorted = (list: readonly Raised[]): string[] =>
  list.map((each) => JSON.stringify(Object.values(each))).sort();

it("budgets are raised once for what they measure, however they are edited, and the preview agrees", async () => {
  for (let history = 0; history < sized(4, 200); history++) {
    const random = dice(seeded(history + 1));
    const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
    const project = await openProject(18);
    const startMs = Date.parse(pick(starts)) + Math.floor(random() * 48) * hour;
    const model = new ZoneModel(startMs);
    const clock = () => project.setClock(new Date(model.nowMs).toISOString(), true);
    const made = (name: string): Alert => {
      const budget = random() < 0.6 ? Math.ceil(random() * 6) * 1_000 : undefined;
      return {
        alert_name: name,
        metric: pick(["tokens", "cost_micros"] as const),
        scope: pick(["all", "user", "user", `model:${pick(models)}`, `plan:${pick(plans)}`]),
        period: pick(["day", "week", "month", "year"] as const),
        ...(budget === undefined ? {} : { budget }),
        thresholds: [
          ...new Set(
            Array.from({ length: 1 + Math.floor(random() * 3) }, () =>
              budget === undefined ? Math.ceil(random() * 6_000) : Math.ceil(random() * 120),
            ),
          ),
        ].sort((a, b) => a - b),
      };
    };
    // The fourth is never edited: the preview of it says what was raised.
    let alerts: Alert[] = ["one", "two", "three", "four"].map(made);
    const expected: (Raised & { readonly subject: string })[] = [];
    const told: string[] = [];
    let lookedMs = Number.NEGATIVE_INFINITY;
    /** What upkeep must raise now, beside what it has raised. */
    const look = (): void => {
      const days = openDays(
        Math.max(Math.min(lookedMs - 120_000, model.nowMs - 600_000), model.nowMs - 31 * 24 * hour),
        model.nowMs,
      );
      for (const alert of alerts) {
        const { alert_name: name, metric, scope, period, budget } = alert;
        const subject = [metric, scope, budget].join(" ");
        for (const key of new Set(days.map((day) => keyOf(period, day))))
          for (const user of scope === "user" ? model.users : [""]) {
            const value = model.uses
              .filter(
                (use) =>
                  keyOf(period, use.day) === key &&
                  (user === "" || use.user === user) &&
                  (!scope.startsWith("model:") || `model:${use.model}` === scope) &&
                  (!scope.startsWith("plan:") || `plan:${planOf(use.user)}` === scope),
              )
              .reduce((sum, { tokens }) => sum + tokens * (metric === "tokens" ? 1 : 2), 0);
            const reached = alert.thresholds.filter((each) =>
              budget === undefined ? value >= each : value * 100 >= each * budget,
            );
            const threshold = Math.max(...reached);
            const isKnown = expected.some(
              (each) =>
                each.alert === name &&
                each.user === user &&
                each.key === key &&
                each.subject === subject &&
                each.threshold >= threshold,
            );
            if (reached.length > 0 && !isKnown) expected.push({ alert: name, user, key, threshold, subject });
          }
      }
      lookedMs = model.nowMs;
    };
    const planOf = (user: string): string => plans[Number(user.slice(-1)) % 2] as string;
    await clock();
    await project.rpc("apply_preset", { p_preset: preset(alerts) });
    for (let n = 0; n < 5; n++) {
      const [user, zone] = [`b-${history}-${n}`, pick(zones)];
      await project.rpc("upsert_account", { p_user_id: user, p_plan_id: planOf(user), p_timezone: zone });
      model.setZone(user, zone);
    }
    await project.rpc("run_maintenance");
    look();
    for (let step = 0; step < 45; step++) {
      const chance = random();
      if (chance < 0.2) {
        // Made, edited, taken out, or put back as it was.
        const name = pick(["one", "two", "three"]);
        const others = alerts.filter((each) => each.alert_name !== name);
        const was = alerts.find((each) => each.alert_name === name);
        const wanted = made(name);
        // Mostly one thing of it: what it measures, or of whom, under the same numbers.
        const edit = pick(["metric", "scope", "period", "thresholds", "all"] as const);
        const is = was && edit !== "all" ? { ...was, [edit]: wanted[edit] } : wanted;
        alerts = random() < 0.2 ? others : [...others, is];
        told.push(`${new Date(model.nowMs).toISOString()} alerts ${JSON.stringify(alerts)}`);
        await project.rpc("apply_preset", { p_preset: preset(alerts) });
      } else if (chance < 0.7) {
        const [user, tokens, of] = [pick(model.users), Math.ceil(random() ** 2 * 1_500), pick(models)];
        const id = `${history}-${step}`;
        await project.rpc("authorize_usage", {
          p_request_id: id,
          p_user_id: user,
          p_model: of,
          p_estimated_tokens: 1,
        });
        await project.rpc("settle_usage", { p_request_id: id, p_input_tokens: tokens, p_output_tokens: 0 });
        model.settle(user, tokens, of, "");
        told.push(
          `${new Date(model.nowMs).toISOString()} ${user} ${tokens} ${of} on ${model.uses.at(-1)?.day}`,
        );
      } else if (chance < 0.8) {
        const [user, zone] = [pick(model.users), pick(zones)];
        await project.rpc("upsert_account", { p_user_id: user, p_timezone: zone });
        model.setZone(user, zone);
      } else {
        model.nowMs += Math.ceil(random() ** 3 * 40) * hour + Math.floor(random() * 60) * 60_000;
        await clock();
      }
      if (random() < 0.7 || step === 44) {
        await project.rpc("run_maintenance");
        look();
        const events = expected.map(({ alert, user, key, threshold }) => ({ alert, user, key, threshold }));
        expect({ history, step, told: told.slice(-12), raised: sorted(await raisedSoFar(project)) }).toEqual({
          history,
          step,
          told: told.slice(-12),
          raised: sorted(events),
        });
      }
    }
    const [kept] = alerts.filter((each) => each.alert_name === "four");
    const { effect } = await project.one<{
      effect: {
        raised: { times: number; times_at_most: number; latest: { key: string; threshold: number }[] };
      };
    }>("select governance.alert_effect($1, null, governance.now()) as effect", [JSON.stringify(kept)]);
    const raised = expected.filter((each) => each.alert === "four");
    const { times, times_at_most: atMost, latest } = effect.raised;
    const found = { alert: JSON.stringify(kept), raised: raised.length, times, atMost };
    expect(found).toMatchObject({
      times: expect.toSatisfy((n: number) => n <= raised.length),
      atMost: expect.toSatisfy((n: number) => n >= raised.length),
    });
    // Whatever it names was raised: that threshold of that period.
    for (const { key, threshold } of latest)
      expect({
        ...found,
        key,
        threshold,
        isRaised: raised.some((each) => each.key === key && each.threshold === threshold),
      }).toMatchObject({ isRaised: true });
    // Operators read names, amounts and periods as people write them.
    const { rows } = await project.sql.query<{ message: string; said: string }>(
      `select e.message, replace(k.alert_name, '_', ' ') || ': ' || case
         when a.user_id is not null then a.user_id || ' has used ' || x.amount || ' (' || x.period || ')'
         when e.details ->> 'budget' is not null then e.value || '% of the budget for ' || x.period || ' is used'
         else x.amount || ' used (' || x.period || ')' end as said
       from governance.alert_events e join governance.cost_alerts k using (alert_id)
       left join governance.accounts a using (account_id)
       cross join lateral (select governance.say_period(e.period_key, 'en') as period,
         case e.details ->> 'metric' when 'tokens' then replace(to_char(coalesce((e.details ->> 'amount')::numeric,
             e.value), 'FM999,999,999,990'), ' ', '') || ' tokens'
           else to_char(coalesce((e.details ->> 'amount')::numeric, e.value) / 1000000, 'FM999,999,990.00') || ' USD'
         end as amount) x
       where e.kind in ('budget', 'user_budget')`,
    );
    expect(rows.map(({ message }) => message)).toEqual(rows.map(({ said }) => said));
    for (const { message } of rows) expect(message).not.toMatch(/\d{4}-(?:W?\d\d)|micros/);
    await project.close();
  }
});
