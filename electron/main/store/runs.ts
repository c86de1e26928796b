/** Reconciliation runs and their differences. */
import type { ReconciliationRun } from "../../../shared/contract/index.ts";
import { parse, type Sql, write } from "./sql.ts";

const maxRuns = 30;

export interface StoredRun {
  readonly profile_id: string;
  readonly run: ReconciliationRun;
  readonly report: unknown;
}

/** A run that was under way when the console ended will not go on. */
function endInterrupted({ run, all }: Sql): void {
  for (const row of all("select run from runs")) {
    const interrupted = parse(row.run) as ReconciliationRun;
    if (interrupted.status !== "running") continue;
    const ended: ReconciliationRun = { ...interrupted, status: "cancelled", phase: "interrupted" };
    run("update runs set run = ? where run_id = ?", JSON.stringify(ended), ended.run_id);
  }
}

export function storeRuns(sql: Sql) {
  const { run, all, one, inTransaction } = sql;
  endInterrupted(sql);
  return {
    putRun(profileId: string, { run: stored, report }: Omit<StoredRun, "profile_id">): void {
      run(
        `insert into runs values (?, ?, ?, ?, ?)
         on conflict (run_id) do update set run = excluded.run, report = coalesce(excluded.report, runs.report)`,
        stored.run_id,
        profileId,
        JSON.stringify(stored),
        write(report),
        stored.started_at,
      );
      for (const old of all(
        `select run_id from runs where profile_id = ? order by started_at desc limit -1 offset ${maxRuns}`,
        profileId,
      )) {
        run("delete from differences where run_id = ?", String(old.run_id));
        run("delete from runs where run_id = ?", String(old.run_id));
      }
    },
    getRun(runId: string): StoredRun | null {
      const row = one("select profile_id, run, report from runs where run_id = ?", runId);
      return row
        ? {
            profile_id: String(row.profile_id),
            run: parse(row.run) as ReconciliationRun,
            report: parse(row.report),
          }
        : null;
    },
    /** Newest first. */
    listRuns: (profileId: string): ReconciliationRun[] =>
      all("select run from runs where profile_id = ? order by started_at desc", profileId).map(
        (row) => parse(row.run) as ReconciliationRun,
      ),
    putDifferences(
      runId: string,
      from: number,
      differences: readonly { class: string; difference: unknown }[],
    ): void {
      inTransaction(() => {
        differences.forEach(({ class: name, difference }, index) => {
          run(
            "insert or replace into differences values (?, ?, ?, ?)",
            runId,
            from + index,
            name,
            JSON.stringify(difference),
          );
        });
      });
    },
    pageDifferences(
      runId: string,
      differenceClass: string | null,
      offset: number,
      limit: number,
    ): { differences: unknown[]; total: number } {
      const where = "run_id = ?1 and (?2 is null or class = ?2)";
      const rows = all(
        `select difference from differences where ${where} order by position limit ?3 offset ?4`,
        runId,
        differenceClass,
        limit,
        offset,
      );
      const total = Number(
        one(`select count(*) as total from differences where ${where}`, runId, differenceClass)?.total,
      );
      return { differences: rows.map((row) => parse(row.difference)), total };
    },
  };
}
