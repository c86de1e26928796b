/** Replays in a thread of its own, so that the console stays responsive. It has no key and no network. */
import { parentPort } from "node:worker_threads";
import {
  compileRules,
  type ReplayEvent,
  readThreshold,
  simulatePlans,
  startBacktest,
} from "../../../../shared/governance/index.ts";
import type { FromReplay, JudgeJob, ToReplay } from "./replay-messages.ts";

const port = parentPort;
if (!port) throw new Error("replay-worker.ts runs in a worker thread only.");
const say = (message: FromReplay): void => port.postMessage(message);

/** Events that were read stay here, so that the next draft over the same past is judged at once. */
const mostKept = 150_000;
let kept: ReplayEvent[] | null = [];
let judge: Judge | null = null;
let judged = 0;

/** Takes events, and sends the result at the end. */
interface Judge {
  readonly push: (event: ReplayEvent) => void;
  readonly done: () => Extract<FromReplay, { type: "done" }>["of"];
}

function judgeOf(job: JudgeJob): Judge {
  if (job.is === "plans") {
    const simulator = simulatePlans(job.scenario);
    return {
      push: (event) => simulator.push(event),
      done: () => ({ is: "plans", report: simulator.report() }),
    };
  }
  const paying = new Set(job.paying_plans);
  const backtest = startBacktest({
    draft: compileRules(job.rules),
    examples: 50,
    paying_plans: paying,
    ...(job.prices ? { prices: job.prices } : {}),
  });
  const rule = job.rules.find((each) => each.rule_name === job.rule_name);
  const threshold = rule && job.threshold ? readThreshold(rule, job.threshold, paying) : null;
  return {
    push(event) {
      backtest.push(event);
      threshold?.push(event);
    },
    done: () => ({ is: "rule", report: backtest.report(), curve: threshold?.curve() ?? null }),
  };
}

function take(event: ReplayEvent): void {
  judge?.push(event);
  judged += 1;
}

port.on("message", (message: ToReplay) => {
  switch (message.type) {
    case "judge":
      judge = judgeOf(message.job);
      judged = 0;
      for (const event of kept ?? []) take(event);
      return;
    case "events":
      for (const event of message.events) {
        take(event);
        if (kept === null) continue;
        if (kept.length < mostKept) kept.push(event);
        else kept = null;
      }
      return say({ type: "judged", events: judged });
    case "end":
      if (judge) say({ type: "done", of: judge.done() });
  }
});
