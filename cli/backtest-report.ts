/** What a backtest found, as text. */
import {
  type BacktestReport,
  describeReason,
  describeRule,
  formatCount as count,
  type PlanSimulation,
  type Rule,
} from "../shared/governance/index.ts";
import { moment, moneyIn, table } from "./backtest-text.ts";

/** `rules` is what was replayed: the draft laid over the rules in force. */
export function describeBacktest(
  report: BacktestReport,
  rules: readonly Rule[],
  draft: readonly Rule[],
  hasPrices: boolean,
): string {
  const sections = [
    ["Draft", ...draft.map((rule) => `  ${rule.rule_name}: ${describeRule(rule)}`)],
    [...whatWasJudged(report), ...whatIsNotKnown(report, rules, hasPrices)],
    [decisionTable(report)],
    [effectTable(report)],
    ruleLines(report, rules, draft),
    changedLines(report),
  ];
  return textOf(sections);
}

export function describePlans(report: PlanSimulation): string {
  return textOf([
    ["Plans", sidesTable(report), ...whatRevenueNeeds(report)],
    [effectOnCalls(report), ...whatIsSetAside(report)],
    runsOutLines(report),
  ]);
}

function textOf(sections: readonly (readonly string[])[]): string {
  const written = sections.filter((lines) => lines.length > 0).map((lines) => lines.join("\n"));
  return `${written.join("\n\n")}\n`;
}

function whatWasJudged(report: BacktestReport): string[] {
  const span = report.from && report.to ? `, ${moment(report.from)} to ${moment(report.to)} UTC` : "";
  const lines = [`${count(report.judged)} calls of ${count(report.users)} users judged${span}.`];
  const aside: string[] = [];
  if (report.without_facts > 0) aside.push(`${count(report.without_facts)} without facts`);
  if (report.stopped_by_operator > 0)
    aside.push(`${count(report.stopped_by_operator)} stopped by an operator`);
  if (report.malformed > 0) aside.push(`${count(report.malformed)} malformed`);
  if (aside.length > 0) lines.push(`Set aside: ${aside.join(", ")}.`);
  return lines;
}

function whatIsNotKnown(report: BacktestReport, rules: readonly Rule[], hasPrices: boolean): string[] {
  const lines = Object.entries(report.facts_missing).map(
    ([fact, calls]) =>
      `Not known of ${count(calls)} calls: ${fact}, ${fact === "message" ? "which is never kept" : "which no rule in force read then"}. Rules that read it show too few hits.`,
  );
  if (!hasPrices && rules.some((rule) => rule.action.route))
    lines.push("What reroutes save is not known: name the prices with --prices.");
  else if (report.rerouted_without_cost > 0)
    lines.push(
      `What ${count(report.rerouted_without_cost)} reroutes save is not known: no price is known for them then.`,
    );
  return lines;
}

function decisionTable({ was, would_be: wouldBe }: BacktestReport): string {
  return table([
    ["", "was", "would be"],
    ["allowed", count(was.allow), count(wouldBe.allow)],
    ["warned by a rule", count(was.warn), count(wouldBe.warn)],
    ["stopped", count(was.block), count(wouldBe.block)],
  ]);
}

function effectTable(report: BacktestReport): string {
  const paying = report.paying_users_newly_stopped;
  return table([
    ["newly stopped", count(report.newly_stopped), `of ${count(report.users_newly_stopped)} users`],
    ["newly let through", count(report.newly_allowed), `about ${count(report.tokens_newly_expected)} tokens`],
    ["newly warned", count(report.newly_warned), ""],
    ["sent to another model", count(report.rerouted), ""],
    ["shortened", count(report.truncated), ""],
    ["newly flagged users", count(report.newly_flagged_users), ""],
    ["tokens saved", count(report.tokens_saved), ""],
    ["cost saved", moneyIn(report.currency)(report.cost_saved_micros), ""],
    [
      "paying users newly stopped",
      paying === null ? "?" : count(paying),
      paying === null ? "say which plans pay: --paying" : "",
    ],
  ]);
}

function ruleLines(report: BacktestReport, rules: readonly Rule[], draft: readonly Rule[]): string[] {
  const money = moneyIn(report.currency);
  const drafted = new Set(draft.map((rule) => rule.rule_name));
  const shown = report.rules.filter((rule) => rule.matched > 0 || drafted.has(rule.rule_name));
  const others = rules.length - shown.length;
  const rows = shown.map((rule) => [
    rule.rule_name,
    `${drafted.has(rule.rule_name) ? "draft" : ""}${rule.mode === "shadow" ? " shadow" : ""}`.trim(),
    count(rule.matched),
    count(rule.stopped),
    count(rule.newly_stopped),
    count(rule.users),
    count(rule.tokens_saved),
    money(rule.cost_saved_micros),
    Object.entries(rule.overlap)
      .slice(0, 3)
      .map(([name, times]) => `${name} ${count(times)}`)
      .join(", "),
  ]);
  return [
    table(
      [
        ["rule", "", "matched", "stops", "newly", "users", "tokens saved", "cost saved", "together with"],
        ...rows,
      ],
      2,
    ),
    ...(others > 0 ? [`${others} other rule${others === 1 ? "" : "s"} matched nothing.`] : []),
  ];
}

function changedLines({ changed, changed_total: total }: BacktestReport): string[] {
  if (changed.length === 0) return [];
  const rows = changed.map((each) => [
    moment(each.at),
    each.user_id,
    each.plan_id ?? "",
    each.words,
    each.request_id,
  ]);
  return [
    `Changed decisions (${count(changed.length)} of ${count(total)}):`,
    table([["at (UTC)", "user", "plan", "what", "request"], ...rows], 5),
  ];
}

function sidesTable(report: PlanSimulation): string {
  const money = moneyIn(report.currency);
  const orUnknown = (micros: number | null): string => (micros === null ? "?" : money(micros));
  const rows = report.plans.flatMap((plan) => [
    [
      plan.plan_id,
      "now",
      count(plan.accounts),
      count(plan.active_months),
      count(plan.now.tokens_used),
      money(plan.now.cost_micros),
      orUnknown(plan.now.revenue_micros),
      orUnknown(plan.now.margin_micros),
    ],
    [
      "",
      "would be",
      "",
      "",
      count(plan.would_be.tokens_used),
      money(plan.would_be.cost_micros),
      orUnknown(plan.would_be.revenue_micros),
      orUnknown(plan.would_be.margin_micros),
    ],
  ]);
  return table(
    [["plan", "", "accounts", "months", "tokens used", "model cost", "revenue", "margin"], ...rows],
    2,
  );
}

function whatRevenueNeeds(report: PlanSimulation): string[] {
  return report.plans.some((plan) => plan.now.revenue_micros === null)
    ? ["A revenue of ? needs the plan's price_minor; a margin of ? a price in the currency of the cost."]
    : [];
}

function effectOnCalls(report: PlanSimulation): string {
  return table([
    ["plan", "calls refused", "their tokens", "accounts running out", "calls gained", "expected tokens"],
    ...report.plans.map((plan) => [
      plan.plan_id,
      count(plan.calls_refused),
      count(plan.tokens_refused),
      count(plan.accounts_running_out),
      count(plan.calls_gained),
      count(plan.tokens_gained),
    ]),
  ]);
}

function whatIsSetAside(report: PlanSimulation): string[] {
  const lines: string[] = [];
  if (report.calls_not_judged > 0)
    lines.push(`${count(report.calls_not_judged)} calls without a plan or without facts are not judged.`);
  if (report.calls_without_cost > 0)
    lines.push(`${count(report.calls_without_cost)} calls have no known cost: they count as free.`);
  return lines;
}

function runsOutLines({ runs_out: runsOut, runs_out_total: total }: PlanSimulation): string[] {
  if (runsOut.length === 0) return [];
  const rows = runsOut.map((each) => [moment(each.at), each.user_id, each.plan_id, describeReason(each.why)]);
  return [
    `Would run out (${count(runsOut.length)} of ${count(total)}):`,
    table([["at (UTC)", "user", "plan", "why"], ...rows], 4),
  ];
}
