/**
 * `npm run backtest`: replays draft rules or plans over a project's past calls, and reports whom they would have hit
 * and what they would have cost.
 */
import {
  compileRules,
  isReplayEvent,
  type ReplayEvent,
  simulatePlans,
  startBacktest,
} from "../shared/governance/index.ts";
import { BadArguments, HELP, readArguments } from "./backtest-arguments.ts";
import { bookOf, laidOver, presetPrices, readRules, readScenario, rulesInForce } from "./backtest-drafts.ts";
import { fileEvents, keepEvents, projectEvents } from "./backtest-events.ts";
import { describeBacktest, describePlans } from "./backtest-report.ts";
import { printable } from "./backtest-text.ts";

async function main(): Promise<number> {
  const given = readArguments();
  if (!given) {
    process.stdout.write(HELP);
    return 0;
  }
  const prices = given.prices === null ? null : presetPrices(given.prices);
  const draft = given.rules === null ? null : readRules(given.rules);
  const plans =
    given.plans === null ? null : simulatePlans(readScenario(given.plans, prices), given.examples);
  const rules = draft === null ? [] : laidOver(await rulesInForce(given), draft);
  const backtest =
    draft === null
      ? null
      : startBacktest({
          draft: compileRules(rules),
          examples: given.examples,
          ...(prices === null ? {} : { prices: bookOf(prices, "the preset") }),
          ...(given.paying === null ? {} : { paying_plans: given.paying }),
        });
  const save = given.saveEvents === null ? null : await keepEvents(given.saveEvents);
  try {
    for await (const event of given.events === null ? projectEvents(given) : fileEvents(given.events)) {
      backtest?.push(event as ReplayEvent);
      plans?.push(event as ReplayEvent);
      if (save && isReplayEvent(event)) await save.write(event);
    }
    await save?.finish();
  } finally {
    await save?.close();
  }
  const report = backtest?.report();
  const simulation = plans?.report();
  if (given.json)
    process.stdout.write(
      `${JSON.stringify({ ...report, ...(simulation ? { plan_simulation: simulation } : {}) }, null, 2)}\n`,
    );
  else
    process.stdout.write(
      printable(
        [
          report && draft ? describeBacktest(report, rules, draft, prices !== null) : null,
          simulation ? describePlans(simulation) : null,
        ]
          .filter((text) => text !== null)
          .join("\n"),
      ),
    );
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(
    `${printable((error as Error).message)}${error instanceof BadArguments ? "\n\nSee npm run backtest -- --help." : ""}\n`,
  );
  process.exitCode = error instanceof BadArguments ? 2 : 1;
}
