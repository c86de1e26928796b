/**
 * Random histories of several accounts, step by step against a small model of what the books must say. `TESTS`
 * sets how many (tests/support/size.ts).
 */
import { sized } from "../../support/size.ts";
import { describe, expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import {
  type Answer,
  expectSoundBooks,
  installedVersions,
  openProject,
  type Project,
} from "../../support/project.ts";
import { LedgerModel } from "../../support/models/ledger-model.ts";

/** The server that we ship gets them all; the other one enough to notice where it differs. */
const historiesOn = (version: 15 | 18): number => sized(version === 18 ? 12 : 4, 10_000);
const steps = 120;
const minute = 60_000;

/** Plan pro of the preset, with numbers that a short history reaches. */
const plan = { allowance: 20_000, dailyLimit: 15_000, ceiling: 6_000, holdMs: 15 * minute };

type Step = readonly [name: string, ...parameters: unknown[]];

/** One step as the database takes it, and as the model does. */
function nextStep(
  model: LedgerModel,
  random: () => number,
  history: number,
  chance: number,
): [Step, Answer | null] {
  const user = `user-${history}-${Math.floor(random() * 3)}`;
  // Few ids: repeats, conflicts and calls that have ended already are what histories are about.
  const id = `call-${history}-${Math.floor(random() * 40)}`;
  const amount = Math.ceil(random() ** 3 * 8_000);
  if (chance < 0.34)
    return [["authorize_usage", id, user, "gpt-4o-mini", amount], model.authorize(id, user, amount)];
  if (chance < 0.58) {
    const [input, output] = [Math.floor(random() ** 3 * 5_000), Math.floor(random() * 900)];
    return [["settle_usage", id, input, output], model.settle(id, input, output)];
  }
  if (chance < 0.68) {
    const reason = random() < 0.8 ? "failed" : "given up";
    return [["release_usage", id, reason], model.release(id, reason)];
  }
  if (chance < 0.84) {
    const isIn = random() < 0.6;
    const type = isIn
      ? ["purchase", "bonus", "subscription_grant", "adjustment", "refund"][Math.floor(random() * 5)]
      : ["adjustment", "usage", "reversal"][Math.floor(random() * 3)];
    const expiresAt = isIn && random() < 0.5 ? model.now + Math.floor(random() * 3 * 1_440) * minute : null;
    const key = `change-${history}-${Math.floor(random() * 60)}`;
    const tokens = isIn ? amount : -amount;
    return [
      [
        "update_user_token_balance",
        user,
        tokens,
        type,
        null,
        {},
        key,
        expiresAt === null ? null : new Date(expiresAt).toISOString(),
      ],
      model.change(user, tokens, type ?? "", key, expiresAt),
    ];
  }
  if (chance < 0.88) {
    model.maintain();
    return [["run_maintenance"], null];
  }
  // Minutes, hours, now and then days or weeks; and back, for an hour.
  const jump = random();
  model.now +=
    jump < 0.1
      ? -60 * minute
      : Math.floor(random() * (jump < 0.6 ? 20 : jump < 0.96 ? 1_500 : 30_000)) * minute;
  return [["set_test_clock"], null];
}

const batched: Readonly<Record<string, readonly string[]>> = {
  authorize_usage: ["request_id", "user_id", "model", "estimated_tokens"],
  settle_usage: ["request_id", "input_tokens", "output_tokens"],
  release_usage: ["request_id", "reason"],
};

/** Steps of one kind in one batch; what is refused answers as the single function's refusal does. */
async function takeTogether(project: Project, batch: readonly Step[]): Promise<readonly Answer[]> {
  const name = batch[0]?.[0] ?? "";
  const calls = batch.map(([, ...values]) =>
    Object.fromEntries((batched[name] ?? []).map((key, at) => [key, values[at]])),
  );
  const answers = (await project.call(`${name}_many`, JSON.stringify(calls))) as unknown as Answer[];
  return answers.map((answer) => {
    const error = answer["error"] as Answer | undefined;
    return error ? { refused: error["code"], hint: error["hint"], message: error["message"] } : answer;
  });
}

async function take(project: Project, model: LedgerModel, step: Step): Promise<Answer> {
  const [name, ...parameters] = step;
  if (name === "run_maintenance") {
    while ((await project.call(name))["more"]) {
      // The next round goes on.
    }
    return {};
  }
  if (name !== "set_test_clock") return project.call(name, ...parameters);
  await project.sql.query("select governance.set_test_clock($1, true)", [new Date(model.now).toISOString()]);
  return {};
}

/** Tells histories, one by one or in batches of what follows upon each other. */
async function tell(project: Project, seed: number, count: number, inBatches: boolean): Promise<void> {
  await project.sql.query("update governance.plans set monthly_allowance = $1, daily_limit = $2", [
    plan.allowance,
    plan.dailyLimit,
  ]);
  // Calls are kept however far the clock goes.
  await project.sql.query(
    "update governance.active_config set settle_ceiling_tokens = $1, decision_retention_days = 100000",
    [plan.ceiling],
  );
  for (let history = 0; history < count; history += 1) {
    const random = dice(seed * 1_000 + history);
    // Each begins at the same moment with users of its own: the month's end and 29 February lie ahead.
    const model = new LedgerModel(Date.parse("2028-02-20T12:00:00Z"), plan);
    await take(project, model, ["set_test_clock"]);
    const told: string[] = [];
    let open: [Step, Answer][] = [];
    const compare = (n: number, expected: Answer, answer: Answer): void => {
      const known =
        "refused" in expected
          ? { refused: answer["hint"] }
          : Object.fromEntries(Object.keys(expected).map((key) => [key, answer[key]]));
      // The last steps beside the difference: enough to see how it came about.
      expect({ seed, history, n, told: told.slice(-8), answer: known }).toEqual({
        seed,
        history,
        n,
        told: told.slice(-8),
        answer: expected,
      });
    };
    async function close(n: number): Promise<void> {
      if (open.length === 0) return;
      const together = open;
      open = [];
      const answers = await takeTogether(
        project,
        together.map(([step]) => step),
      );
      for (const [place, [, expected]] of together.entries()) compare(n, expected, answers[place] ?? {});
    }
    let chance = 0;
    for (let n = 0; n < steps; n += 1) {
      // In batches what comes is mostly of the kind of what came, that batches get some length.
      if (!inBatches || n === 0 || random() < 0.25) chance = random();
      const [step, expected] = nextStep(model, random, history, chance);
      told.push(JSON.stringify(step));
      if (inBatches && expected && batched[step[0]]) {
        if (open[0] && open[0][0][0] !== step[0]) await close(n);
        open.push([step, expected]);
        continue;
      }
      await close(n);
      const answer = await take(project, model, step);
      if (expected !== null) compare(n, expected, answer);
    }
    await close(steps);
    // What no call has woken is brought up to the moment, and each account is looked at, lot by lot.
    model.maintain();
    while ((await project.call("run_maintenance"))["more"]) {
      // The next round goes on.
    }
    for (const user of model.users()) {
      const found = await project.one<{ balance: unknown; lots: number[] }>(
        `select governance.account_json(a) -> 'balance' as balance,
          (select array_agg(l.remaining::int order by l.lot_id) from governance.lots l where l.account_id = a.account_id) as lots
         from governance.accounts a where a.user_id = $1`,
        [user],
      );
      expect({ seed, user, ...found }).toEqual({
        seed,
        user,
        balance: model.balance(user),
        lots: model.lots(user),
      });
    }
    const { statuses } = await project.one<{ statuses: Record<string, string> }>(
      "select coalesce(jsonb_object_agg(request_id, status), '{}') as statuses from governance.requests where request_id like $1",
      [`call-${history}-%`],
    );
    expect({ seed, history, statuses }).toEqual({ seed, history, statuses: model.statuses() });
  }
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  const histories = historiesOn(version);
  it.each([
    ["one by one", false],
    ["in batches", true],
  ])(
    `${histories} random histories, calls %s, say what a model of the books says, at every step and lot by lot`,
    async (_way, inBatches) => {
      const project = await openProject(version);
      await tell(project, version, histories, inBatches);
      await expectSoundBooks(project);
      await project.close();
    },
  );
});
