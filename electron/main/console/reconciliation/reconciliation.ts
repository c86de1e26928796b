/** The finance desk: brings in exports, matches them against the ledger, keeps the runs. */
import type { Failure, Notice, ReconciliationRun } from "../../../../shared/contract/index.ts";
import { fail, ok } from "../../../../shared/governance/result.ts";
import type { Desk } from "../desk.ts";
import type { Handlers, Log } from "../dispatch.ts";
import type { Topic } from "../topic.ts";

export interface ReconciliationOptions {
  readonly desk: Desk;
  readonly log: Log;
  readonly onChange: () => void;
  readonly notices: Topic<Notice>;
}

const notThere: Failure = {
  code: "not_ready",
  message: "Matching is not there yet.",
  advice: null,
  details: null,
};

export function createReconciliation({ desk }: ReconciliationOptions) {
  const handlers: Pick<Handlers, Extract<keyof Handlers, `reconciliation.${string}`>> = {
    "reconciliation.open_upload": () => fail(notThere),
    "reconciliation.upload_chunk": () => fail(notThere),
    "reconciliation.start": () => fail(notThere),
    "reconciliation.cancel": () => fail(notThere),
    "reconciliation.runs": () => ok(desk.store.listRuns(desk.connection.profileId() ?? "")),
    "reconciliation.report": () => fail(notThere),
    "reconciliation.differences": () => fail(notThere),
    "reconciliation.export": () => fail(notThere),
  };
  return {
    handlers,
    openDifferences: () => 0,
    follow: (_runId: string, _emit: (run: ReconciliationRun) => void) => () => {},
    close: async () => {},
  };
}
