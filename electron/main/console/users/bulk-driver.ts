/**
 * Corrections of many users: this console sends the steps, the database keeps each. Where the connection or the console
 * is lost, the act stays at its last step, and goes on when the project answers again.
 */
import {
  type BulkAct,
  bulkAct,
  bulkOperations,
  bulkTitle,
  type Notice,
} from "../../../../shared/contract/index.ts";
import type { Backend } from "../../backend/backend.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { ChosenProject } from "../connection/link.ts";
import type { DeskContext } from "../desk-context.ts";

export const stepSize = 50;
/** How long the driver waits before it asks a project that did not answer again. */
const waitMs = [500, 1_000, 2_000, 5_000];

const isUnderWay = ({ status }: BulkAct): boolean => status === "running" || status === "undoing";

export type BulkDriver = ReturnType<typeof createBulkDriver>;

export function createBulkDriver(desk: DeskContext, notify: (notice: Notice) => void) {
  const { connection, operator } = desk;
  /**
   * Projects and bulk acts whose steps this console sends now. True where one was stopped, gone on with or undone since
   * the last step was sent: that step may still answer that there is nothing left to do.
   */
  const driven = new Map<string, boolean>();
  /** Projects that were looked through for acts that this operator left in the middle. */
  const resumed = new Set<string>();
  const keyOf = (profileId: string, bulkId: number): string => `${profileId} ${bulkId}`;

  async function drive(project: ChosenProject, bulkId: number): Promise<void> {
    const { profileId } = project;
    if (profileId === null) return;
    const key = keyOf(profileId, bulkId);
    const isDriven = driven.has(key);
    driven.set(key, isDriven);
    if (isDriven) return;
    try {
      let failures = 0;
      while (project.isChosen()) {
        driven.set(key, false);
        const stepped = await project.rpc(
          "console_step_bulk_act",
          { p_bulk_id: bulkId, p_limit: stepSize },
          bulkAct,
        );
        if (stepped.ok) {
          failures = 0;
          if (isUnderWay(stepped.value) || driven.get(key)) continue;
          tell(stepped.value);
          connection.wake();
          return;
        }
        // A step that was lost did nothing, or is kept: the next one goes on either way.
        failures = driven.get(key) ? 1 : failures + 1;
        if (!isUnreachable(stepped.error) && failures > waitMs.length) {
          notify({
            level: "warning",
            title: "An act on many users waits",
            body: `${stepped.error.message} It stays at its last step: Audit, Many at once.`,
          });
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, waitMs[Math.min(failures, waitMs.length) - 1]));
      }
      // Another project was chosen: this one goes on when it is chosen again.
      resumed.delete(profileId);
    } finally {
      driven.delete(key);
    }
  }

  function tell(bulk: BulkAct): void {
    if (bulk.status !== "done" && bulk.status !== "undone") return;
    const title = bulkTitle(bulk.kind);
    const refused = bulk.refused > 0 ? ` Refused: ${bulk.refused.toLocaleString("en")}.` : "";
    notify({
      level: bulk.refused > 0 ? "warning" : "info",
      title: bulk.status === "done" ? `Done: ${title}` : `Undone: ${title}`,
      body:
        bulk.status === "done"
          ? `${bulk.done.toLocaleString("en")} of ${bulk.accounts.toLocaleString("en")} users.${refused}`
          : `Taken back from ${bulk.undone.toLocaleString("en")} of ${bulk.done.toLocaleString("en")} users.`,
    });
  }

  /** Starts to send the steps, where there are any; the answer goes to the screen at once. */
  function driveIfUnderWay(project: ChosenProject, bulk: BulkAct): void {
    if (isUnderWay(bulk)) void drive(project, bulk.bulk_id);
  }

  return {
    driveIfUnderWay,
    isDriving: (): boolean => driven.size > 0,
    isDriven: (bulkId: number): boolean => driven.has(keyOf(connection.profileId() ?? "", bulkId)),

    /** Goes on with what this operator's console was in the middle of when it ended. */
    async resume(profileId: string, backend: Backend): Promise<void> {
      const project = connection.current();
      if (resumed.has(profileId) || project.profileId !== profileId) return;
      const found = await backend.rpc(
        "console_list_bulk_acts",
        { p_limit: 50 },
        bulkOperations["bulk.list"].output,
      );
      if (!found.ok || !project.isChosen()) return;
      resumed.add(profileId);
      for (const bulk of found.value.bulks) {
        const whose = bulk.status === "undoing" ? bulk.undone_by : bulk.operator;
        if (isUnderWay(bulk) && whose === operator()) void drive(project, bulk.bulk_id);
      }
    },
  };
}
