/** What a reconciliation reads of the project. */
import { z } from "zod";
import type { Failure } from "../../../../shared/contract/index.ts";
import type {
  LedgerRecord,
  PackPrice,
  Period,
  RollForwardLine,
} from "../../../../shared/governance/reconciliation/index.ts";
import type { Result } from "../../../../shared/governance/result.ts";
import type { ChosenProject } from "../connection/link.ts";
import type { ClosedPeriod } from "./exports-report.ts";
import type { ProjectFacts } from "./messages.ts";

const ledgerPage = z.looseObject({
  // The reconciliation checks each record, and names the row and the column of a wrong one.
  records: z.array(z.looseObject({ transaction_id: z.number().int() })),
  next_cursor: z.string().nullable(),
});
const closedPeriod = z.looseObject({
  run_id: z.string(),
  seal: z.string(),
  closed_at: z.string(),
  closed_by: z.string(),
  sign_off: z.string().nullable(),
});
const knownPayments = z.object({
  other_sales: z.array(z.string()),
  returns: z.record(z.string(), z.string()),
  invoices: z.record(z.string(), z.string()),
});
const ledgerPageSize = 5_000;

/**
 * The ledger's pages of a period, each read when it is asked for. Returns the failure that ended the reading, or null.
 */
export async function* readLedger(
  project: ChosenProject,
  period: Period,
): AsyncGenerator<{ records: LedgerRecord[]; is_last: boolean }, Failure | null> {
  let cursor: string | null = null;
  for (;;) {
    const page: Result<z.output<typeof ledgerPage>, Failure> = await project.rpc(
      "console_ledger_purchases_since",
      { p_cursor: cursor, p_limit: ledgerPageSize, p_from: period.from, p_to: period.to },
      ledgerPage,
      { retries: 3, timeoutMs: 60_000 },
    );
    if (!page.ok) return page.error;
    const { records } = page.value;
    const next: string | null = page.value.next_cursor;
    const isLast: boolean = records.length < ledgerPageSize || next === null || next === cursor;
    yield { records: records as unknown as LedgerRecord[], is_last: isLast };
    if (isLast) return null;
    cursor = next;
  }
}

/** The project's time, asked before the ledger is read: corrections posted later are not in what was read. */
export async function readProjectTime(project: ChosenProject): Promise<string | null> {
  const info = await project.rpc("console_project_info", {}, z.looseObject({ server_time: z.string() }), {
    retries: 1,
  });
  return info.ok ? info.value.server_time : null;
}

/** Facts that complete the report; a fact that cannot be read is left out. */
export async function readFacts(project: ChosenProject, period: Period): Promise<ProjectFacts> {
  const anyList = z.array(z.looseObject({}));
  const [packs, known, rollForward] = await Promise.all([
    project.rpc("console_pack_prices", {}, anyList, { retries: 1 }),
    project.rpc("console_known_payments", { p_from: period.from, p_to: period.to }, knownPayments, {
      retries: 1,
    }),
    project.rpc("console_token_roll_forward", { p_from: period.from, p_to: period.to }, anyList, {
      retries: 1,
      timeoutMs: 60_000,
    }),
  ]);
  return {
    known_payments: known.ok ? known.value : null,
    packs: packs.ok ? (packs.value as unknown as PackPrice[]) : null,
    roll_forward: rollForward.ok ? (rollForward.value as unknown as RollForwardLine[]) : null,
  };
}

/** The period that was closed with a run; null where there is none, or the project cannot be reached. */
export async function readClosedPeriod(project: ChosenProject, runId: string): Promise<ClosedPeriod | null> {
  const periods = await project.rpc("console_closed_periods", {}, z.array(closedPeriod));
  return (periods.ok && periods.value.find((period) => period.run_id === runId)) || null;
}
