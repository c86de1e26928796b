/** Replays in a thread of its own, so that the console stays responsive. It has no key and no network. */
import { parentPort } from "node:worker_threads";
import {
  type Backtest,
  compileRules,
  type ReplayEvent,
  readThreshold,
  startBacktest,
  type ThresholdReader,
} from "../../../../shared/governance/index.ts";
import type { FromReplay, ReplayJob, ToReplay } from "./replay-messages.ts";

const port = parentPort;
if (!port) throw new Error("replay-worker.ts runs in a worker thread only.");
const say = (message: FromReplay): void => port.postMessage(message);

/** Events that were read stay here, so that the next draft over the same past is judged at once. */
const mostKept = 150_000;
let kept: ReplayEvent[] | null = [];
let backtest: Backtest | null = null;
let threshold: ThresholdReader | null = null;
let judged = 0;

function begin(job: ReplayJob): void {
  backtest = startBacktest({
    draft: compileRules(job.rules),
    examples: 100,
    paying_plans: new Set(job.paying_plans),
    ...(job.prices ? { prices: job.prices } : {}),
  });
  const rule = job.rules.find((each) => each.rule_name === job.rule_name);
  threshold = rule && job.threshold ? readThreshold(rule, job.threshold, new Set(job.paying_plans)) : null;
  judged = 0;
  for (const event of kept ?? []) judge(event);
}

function judge(event: ReplayEvent): void {
  backtest?.push(event);
  threshold?.push(event);
  judged += 1;
}

port.on("message", (message: ToReplay) => {
  switch (message.type) {
    case "judge":
      return begin(message.job);
    case "events":
      for (const event of message.events) {
        judge(event);
        if (kept === null) continue;
        if (kept.length < mostKept) kept.push(event);
        else kept = null;
      }
      return say({ type: "judged", events: judged });
    case "end":
      if (backtest) say({ type: "done", report: backtest.report(), curve: threshold?.curve() ?? null });
  }
});
