/** Replays drafts of rules over a project's past calls. */
import { z } from "zod";
import { type Failure, type ReplayRun, rule as ruleRecord } from "../../../../shared/contract/index.ts";
import {
  parsePrices,
  parseRule,
  parseRules,
  type Rule,
  thresholdsOf,
} from "../../../../shared/governance/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { notConnected } from "../connection/link.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers, Log } from "../dispatch.ts";
import { createJudgedRuns } from "./judged-runs.ts";
import type { PastJudge } from "./past-judge.ts";

interface ReplayOptions {
  readonly desk: DeskContext;
  readonly judge: PastJudge;
  readonly log: Log;
}

interface Asked {
  readonly since: string;
  readonly until: string;
  readonly paying_plans: readonly string[];
  readonly path: string | null;
}

export function createReplay(options: ReplayOptions) {
  const runs = createJudgedRuns<ReplayRun>({ ...options, what: "replay" });
  return {
    handlers: {
      "rules.replay_start": ({ rule, since, until, paying_plans, path }) => {
        const parsed = parseRule(rule);
        if (!parsed.ok) return fail(wrongDraft);
        if (!(Date.parse(since) < Date.parse(until))) return fail(wrongPeriod);
        return start(options.desk, runs, parsed.value, { since, until, paying_plans, path });
      },
      "rules.replay_cancel": ({ run_id }) => runs.cancel(run_id),
    } satisfies Pick<Handlers, "rules.replay_start" | "rules.replay_cancel">,
    follow: (id: string, emit: (run: ReplayRun) => void) => runs.follow(id, emit),
  };
}

async function start(
  desk: DeskContext,
  runs: ReturnType<typeof createJudgedRuns<ReplayRun>>,
  draft: Rule,
  { since, until, paying_plans, path }: Asked,
): Promise<Result<ReplayRun, Failure>> {
  const project = desk.connection.current();
  if (project.profileId === null) return fail(notConnected);
  const list = await readThrough(desk, "rules", "list_rules", {}, z.array(ruleRecord));
  if (!list.ok) return list;
  const current = parseRules(list.value.value);
  if (!current.ok) return fail(unreadable);
  // What a reroute saves; without prices the report has it as not known.
  const listed = await readThrough(
    desk,
    "prices",
    "console_prices",
    {},
    z.looseObject({ prices: z.unknown() }),
  );
  const prices = listed.ok ? parsePrices(listed.value.value.prices) : null;
  const draftInForce: Rule = { ...draft, mode: "enforce", is_active: true };
  const thresholds = thresholdsOf(draft);
  const run = runs.start(
    {
      rule_name: draft.rule_name,
      since,
      until,
      thresholds: thresholds.map((each) => ({ ...each })),
      report: null,
      curve: null,
    },
    {
      project,
      since,
      until,
      job: {
        is: "rule",
        rules: [...current.value.filter((rule) => rule.rule_name !== draft.rule_name), draftInForce],
        rule_name: draft.rule_name,
        threshold: thresholds.find((each) => each.path === path) ?? thresholds[0] ?? null,
        paying_plans,
        prices: prices?.ok ? prices.value : null,
      },
    },
    ({ result, events }) => {
      if (result.of.is !== "rule") return null;
      const { report, curve } = result.of;
      return { events: Math.max(events, report.calls), report, curve };
    },
  );
  return ok(run);
}

const unreadable: Failure = {
  code: "unreadable_rules",
  message: "This console cannot read the rules in force; the project may be newer.",
  advice: "Update the console.",
  details: null,
};
const wrongDraft: Failure = {
  code: "invalid_rule",
  message: "The draft does not hold yet.",
  advice: "Mend it where it is marked.",
  details: null,
};
const wrongPeriod: Failure = {
  code: "invalid_argument",
  message: "The time to replay ends before it begins.",
  advice: null,
  details: null,
};
