/** Limits that operators raise for a while, against a plain model: each limit until its own moment, whatever else is done. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import { openProject, type Project } from "../../support/project.ts";
import { seeded, sized } from "../../support/size.ts";

const hour = 3_600_000;
const plan = { daily: 1_000, monthly: 5_000 };
type Limit = keyof typeof plan;
interface Raise {
  readonly limit: number;
  readonly untilMs: number;
}

let project: Project;
beforeAll(async () => {
  project = await openProject(18);
  await project.sql.query(
    "update governance.plans set daily_limit = $1, monthly_limit = $2 where plan_id = 'starter'",
    [plan.daily, plan.monthly],
  );
});
afterAll(() => project?.close());

it("raises that overlap each hold until their own moment, and undoing one leaves the other", async () => {
  for (let history = 0; history < sized(6, 500); history++) {
    const random = dice(seeded(history + 11));
    const user = `raised-${history}`;
    // The clocks change in its zone within the next days, and the month ends.
    let nowMs = Date.parse("2027-03-26T12:00:00Z");
    const clock = () => project.setClock(new Date(nowMs).toISOString(), true);
    await clock();
    await project.rpc("upsert_account", {
      p_user_id: user,
      p_plan_id: "starter",
      p_timezone: "Europe/London",
    });
    const now: Record<Limit, Raise | null> = { daily: null, monthly: null };
    const done: {
      actId: number;
      raised: Partial<Record<Limit, Raise>>;
      before: Record<Limit, Raise | null>;
    }[] = [];
    for (let step = 0; step < 25; step++) {
      const chance = random();
      const last = done.at(-1);
      if (chance < 0.45) {
        const untilMs = nowMs + Math.ceil(random() * 72) * hour;
        const which: Limit[] =
          random() < 0.2 ? ["daily", "monthly"] : random() < 0.5 ? ["daily"] : ["monthly"];
        const raised = Object.fromEntries(
          which.map((each) => [each, { limit: plan[each] + Math.ceil(random() * 9_000), untilMs }]),
        ) as Partial<Record<Limit, Raise>>;
        const { act } = await project.rpc<{ act: { act_id: number } }>("console_act", {
          p_command_id: randomUUID(),
          p_user_id: user,
          p_act: JSON.stringify({
            kind: "raise_limit",
            until: new Date(untilMs).toISOString(),
            ...Object.fromEntries(which.map((each) => [`${each}_limit`, raised[each]?.limit])),
          }),
          p_reason: "goodwill",
          p_operator: "anna",
        });
        done.push({ actId: act.act_id, raised, before: { ...now } });
        Object.assign(now, raised);
      } else if (chance < 0.65 && last) {
        // The last one is taken back: what it raised is as it was before, and nothing else.
        await project.rpc("console_undo_act", {
          p_command_id: randomUUID(),
          p_act_id: last.actId,
          p_reason: "a mistake",
          p_operator: "anna",
        });
        for (const each of Object.keys(last.raised) as Limit[]) now[each] = last.before[each];
        done.pop();
      } else {
        nowMs += Math.ceil(random() * 30) * hour;
        await clock();
      }
      const inForce = (each: Limit): Raise | null => {
        const raise = now[each];
        return raise && raise.untilMs > nowMs ? raise : null;
      };
      const expected = {
        daily: inForce("daily")?.limit ?? plan.daily,
        monthly: inForce("monthly")?.limit ?? plan.monthly,
      };
      const { account, limits } = await project.rpc<{
        account: { raised: Record<string, unknown> | null };
        limits: Record<Limit, { limit: number }>;
      }>("console_get_account", { p_user_id: user });
      const asked = await project.rpc<{ limits: Record<Limit, { limit: number }> }>("authorize_usage", {
        p_request_id: randomUUID(),
        p_user_id: user,
        p_model: "gpt-4o-mini",
        p_estimated_tokens: 1,
      });
      const until = (each: Limit): number | null => {
        const at = account.raised?.[`${each}_until`];
        return typeof at === "string" ? Date.parse(at) : null;
      };
      expect({
        history,
        step,
        page: { daily: limits.daily.limit, monthly: limits.monthly.limit },
        call: { daily: asked.limits.daily.limit, monthly: asked.limits.monthly.limit },
        until: { daily: until("daily"), monthly: until("monthly") },
      }).toEqual({
        history,
        step,
        page: expected,
        call: expected,
        until: { daily: inForce("daily")?.untilMs ?? null, monthly: inForce("monthly")?.untilMs ?? null },
      });
    }
  }
});
