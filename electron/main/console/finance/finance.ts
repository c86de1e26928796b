/**
 * From a finished run to a closed period: keeps runs in the project, and sends people's decisions about their
 * differences. The project decides who may do what alone. Nothing here waits in the outbox: a person who corrects the
 * ledger must see that it was done.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import {
  bulkPreview,
  casePage,
  closedNow,
  closedPeriod,
  closing,
  type Failure,
  financeCase,
  financeCounts,
  keepOutcome,
  keptRun,
  type financeOperations,
  otherProject,
  packPrice,
  posted,
  postPreview,
  effect,
  runComparison,
  stripeEvent,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { ChosenProject } from "../connection/link.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

type FinanceHandlers = Pick<Handlers, keyof typeof financeOperations>;

/** Differences in one call to the project, and calls in one answer to the screen, which shows how far it is. */
const keepPageSize = 1_000;
const keepPagesAtOnce = 4;
const runsShown = 100;
const eventsShown = 200;
/** Previews and pages touch many rows. */
const patient = { timeoutMs: 60_000 } as const;
/** What is keyed by a command or a difference is safe to send again. */
const repeatable = { retries: 2, timeoutMs: 60_000 } as const;

interface FinanceDesk extends DeskContext {
  readonly onChange: () => void;
}

export function financeHandlers(context: DeskContext, onChange: () => void): FinanceHandlers {
  const desk: FinanceDesk = { ...context, onChange };
  return {
    ...keptRunHandlers(desk),
    ...caseHandlers(desk),
    ...closingHandlers(desk),
    ...stripeEventHandlers(desk),
  };
}

/** Runs that the project keeps. */
function keptRunHandlers(desk: FinanceDesk) {
  return {
    "finance.counts": async () => {
      const answer = await readThrough(desk, "finance:counts", "console_finance_counts", {}, financeCounts);
      return answer.ok ? ok(answer.value.value) : answer;
    },

    "finance.keep_run": ({ run_id: runId }) => keepRun(desk, runId),

    "finance.kept_runs": async () => {
      const answer = await readThrough(
        desk,
        "finance:runs",
        "console_kept_runs",
        { p_limit: runsShown },
        z.array(keptRun),
      );
      return answer.ok ? ok({ runs: answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "finance.kept_run": async ({ run_id: runId }) => {
      const answer = await readThrough(
        desk,
        `finance:run:${runId}`,
        "console_kept_run",
        { p_run_id: runId },
        z.looseObject({ run: keptRun, report: z.unknown() }),
      );
      return answer.ok
        ? ok({ run: answer.value.value.run, report: answer.value.value.report, as_of: answer.value.as_of })
        : answer;
    },

    "finance.compare_runs": ({ run_id: runId, other_run_id: otherRunId }) =>
      desk.connection.rpc(
        "console_compare_reconciliations",
        { p_run_id: runId, p_other_run_id: otherRunId, p_limit: 1_000 },
        runComparison,
        patient,
      ),
  } satisfies Partial<FinanceHandlers>;
}

/** People's decisions about differences. */
function caseHandlers(desk: FinanceDesk) {
  return {
    "finance.cases": async ({ filter, after, limit }) => {
      const answer = await readThrough(
        desk,
        `finance:cases:${JSON.stringify([filter, after, limit])}`,
        "console_reconciliation_cases",
        {
          p_status: filter.status,
          p_undecided: filter.undecided,
          p_run_id: filter.run_id,
          p_class: filter.class,
          p_assigned_to: filter.assigned_to,
          p_older_than_days: filter.older_than_days,
          p_text: filter.text,
          p_sort: filter.sort,
          p_descending: filter.descending,
          p_after: after,
          p_limit: limit,
        },
        casePage,
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "finance.case": async ({ difference_id: id }) => {
      const answer = await readThrough(
        desk,
        `finance:case:${id}`,
        "console_reconciliation_cases",
        { p_difference_ids: [id], p_limit: 1 },
        z.looseObject({ cases: z.array(financeCase.extend({ difference: z.unknown() })) }),
      );
      if (!answer.ok) return answer;
      const [found] = answer.value.value.cases;
      if (!found) return fail(noCase);
      const { difference, ...rest } = found;
      return ok({ case: rest, difference, as_of: answer.value.as_of });
    },

    "finance.act": (input) =>
      change(
        desk,
        "console_case_action",
        {
          p_command_id: input.command_id,
          p_difference_ids: input.difference_ids,
          p_action: input.action,
          p_operator: desk.operator(),
          p_reason: input.reason,
          p_details: {
            ...(input.action === "assign" ? { assigned_to: input.assigned_to ?? null } : {}),
            ...(input.action === "propose" && input.correction ? { correction: input.correction } : {}),
          },
          p_expected_versions: input.versions,
        },
        z.looseObject({ cases: z.array(financeCase) }),
      ),

    "finance.preview_act": ({ difference_ids: ids, action }) =>
      desk.connection.rpc(
        "console_preview_cases",
        { p_difference_ids: ids, p_action: action, p_operator: desk.operator() },
        bulkPreview,
        patient,
      ),

    "finance.preview_post": ({ difference_id: id }) =>
      desk.connection.rpc(
        "console_post_correction",
        { p_difference_id: id, p_operator: desk.operator(), p_dry_run: true },
        postPreview,
        patient,
      ),

    "finance.post": async ({ difference_ids: ids, versions }) => {
      const project = desk.connection.current();
      const done: z.output<typeof posted>[] = [];
      const refused: { difference_id: string; failure: Failure }[] = [];
      for (const [index, id] of ids.entries()) {
        const answer = await change(
          desk,
          "console_post_correction",
          {
            p_difference_id: id,
            p_operator: desk.operator(),
            p_dry_run: false,
            p_expected_version: versions[id] ?? null,
          },
          posted,
          project,
        );
        if (answer.ok) done.push(answer.value);
        else refused.push({ difference_id: id, failure: answer.error });
        // Without a connection the rest is not tried; it can safely be sent again.
        if (!answer.ok && (!project.isChosen() || answer.error.code === needsConnectionCode))
          return ok({ posted: done, refused, unsent: ids.length - index - 1 });
      }
      return ok({ posted: done, refused, unsent: 0 });
    },
  } satisfies Partial<FinanceHandlers>;
}

/** Periods, from what is left to do to the sealed statement. */
function closingHandlers(desk: FinanceDesk) {
  return {
    "finance.closing": ({ run_id: runId }) =>
      desk.connection.rpc("console_closing", { p_run_id: runId }, closing, { retries: 1, ...patient }),

    "finance.close_period": ({ command_id: commandId, run_id: runId, sign_off: signOff }) =>
      change(
        desk,
        "console_close_period",
        {
          p_command_id: commandId,
          p_run_id: runId,
          p_operator: desk.operator(),
          p_sign_off: signOff,
        },
        closedNow,
      ),

    "finance.closed_periods": async () => {
      const answer = await readThrough(
        desk,
        "finance:periods",
        "console_closed_periods",
        {},
        z.array(closedPeriod),
      );
      return answer.ok ? ok({ periods: answer.value.value, as_of: answer.value.as_of }) : answer;
    },

    "finance.sealed_period": async ({ run_id: runId }) => {
      const answer = await desk.connection.rpc(
        "console_sealed_period",
        { p_run_id: runId },
        z.looseObject({ sealed: z.string(), seal: z.string() }),
        { retries: 1, ...patient },
      );
      if (!answer.ok) return answer;
      const { sealed, seal } = answer.value;
      const period = z
        .object({ period: z.object({ from: z.string(), to: z.string() }) })
        .safeParse(JSON.parse(sealed));
      const days = period.success
        ? `${period.data.period.from.slice(0, 10)}-${period.data.period.to.slice(0, 10)}`
        : runId;
      return ok({
        file_name: `sealed-period-${days}.json`,
        text: sealed,
        seal,
        is_right: createHash("sha256").update(sealed, "utf8").digest("hex") === seal,
      });
    },
  } satisfies Partial<FinanceHandlers>;
}

/** Stripe events that wait for a person. */
function stripeEventHandlers(desk: FinanceDesk) {
  return {
    "finance.stripe_events": async () => {
      const [events, packs] = await Promise.all([
        readThrough(
          desk,
          "finance:events",
          "console_stripe_events",
          { p_limit: eventsShown },
          z.looseObject({ waiting: z.number().int(), events: z.array(stripeEvent) }),
        ),
        readThrough(desk, "finance:packs", "console_pack_prices", {}, z.array(packPrice)),
      ]);
      if (!events.ok) return events;
      const { waiting, events: list } = events.value.value;
      return ok({
        waiting,
        events: list,
        packs: packs.ok ? packs.value.value : [],
        as_of: events.value.as_of,
      });
    },

    "finance.release_event": (input) =>
      change(
        desk,
        "console_release_stripe_event",
        {
          p_command_id: input.command_id,
          p_event_id: input.event_id,
          p_operator: desk.operator(),
          p_reason: input.reason,
          p_user_id: input.user_id,
          p_pack_id: input.pack_id,
          p_tokens: input.tokens,
        },
        z.looseObject({ status: z.string(), effects: z.array(effect) }),
      ),

    "finance.dismiss_event": (input) =>
      change(
        desk,
        "console_dismiss_stripe_event",
        {
          p_command_id: input.command_id,
          p_event_id: input.event_id,
          p_operator: desk.operator(),
          p_reason: input.reason,
        },
        z.looseObject({}),
      ),
  } satisfies Partial<FinanceHandlers>;
}

/** Sends a change. Without a connection it is refused, not queued. */
async function change<S extends z.ZodType>(
  desk: FinanceDesk,
  name: string,
  parameters: Readonly<Record<string, unknown>>,
  schema: S,
  project: Pick<ChosenProject, "rpc"> = desk.connection,
): Promise<Result<z.output<S>, Failure>> {
  const answer = await project.rpc(name, parameters, schema, repeatable);
  if (answer.ok) desk.onChange();
  return answer.ok || !isUnreachable(answer.error) ? answer : fail(needsConnection(answer.error));
}

async function keepRun(desk: FinanceDesk, runId: string) {
  const { store } = desk;
  const project = desk.connection.current();
  const stored = store.getRun(runId);
  // A screen that was left while it keeps a run goes on asking: the run belongs to the project that it is of.
  if (stored && stored.profile_id !== project.profileId) return fail(otherProject);
  if (!stored || stored.run.status !== "finished" || stored.report === null) return fail(notHere);
  const report = { ...(stored.report as object), ledger_read_at: stored.run.ledger_read_at ?? null };
  const total = store.pageDifferences(runId, null, 0, 1).total;
  const send = (differences: readonly unknown[], isLast: boolean) =>
    change(
      desk,
      "console_keep_reconciliation",
      {
        p_run_id: runId,
        p_operator: desk.operator(),
        p_report: report,
        p_differences: differences,
        p_is_last: isLast,
      },
      keepOutcome,
      project,
    );
  // An empty page answers how many the project has: a broken-off keeping goes on there.
  let kept = await send([], total === 0);
  for (let page = 0; page < keepPagesAtOnce && kept.ok && !kept.value.is_complete; page++) {
    const from: number = kept.value.kept;
    const { differences } = store.pageDifferences(runId, null, from, keepPageSize);
    kept = await send(differences, from + differences.length >= total);
  }
  return kept.ok ? ok({ ...kept.value, total }) : kept;
}

const needsConnectionCode = "needs_connection";
const needsConnection = (failure: Failure): Failure => ({
  code: needsConnectionCode,
  message: "This needs the project, which cannot be reached. Nothing was queued.",
  advice: "Do it again when the connection is back. Even if it did arrive, it is done only once.",
  details: [failure.message, failure.details].filter(Boolean).join("\n") || null,
});
const notHere: Failure = {
  code: "not_found",
  message: "This reconciliation is not on this machine, or did not finish.",
  advice: "Choose a finished one, or reconcile again.",
  details: null,
};
const noCase: Failure = {
  code: "not_found",
  message: "The project keeps no such difference.",
  advice: "Keep the run that found it.",
  details: null,
};
