import { Button } from "@mantine/core";
import { type ReactNode } from "react";
import type { FinanceCounts, KeptRun } from "../../../../shared/contract/finance.ts";
import type { ReconciliationRun } from "../../../../shared/contract/finance-runs.ts";
import { useCall } from "../../lib/console.tsx";
import { placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { PlusIcon } from "../../ui/icons.tsx";
import { Tag, Time } from "../../ui/parts.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { Cases } from "./cases.tsx";
import { ClosedPeriods } from "./closing.tsx";
import css from "./finance.module.css";
import { NewRun } from "./new-run.tsx";
import { PaymentsPage } from "./payments-page.tsx";
import { daysName, periodName } from "./period.ts";
import { RevenuePage } from "./revenue-page.tsx";
import { StripeEvents } from "./stripe-events.tsx";
import { Run, RunResult } from "./run.tsx";

function runSign(run: ReconciliationRun): { readonly tone: Tone; readonly word: string } {
  switch (run.status) {
    case "running":
      return { tone: "blue", word: "running" };
    case "failed":
      return { tone: "red", word: "failed" };
    case "cancelled":
      return { tone: "grey", word: "cancelled" };
    case "finished":
      if (run.tied_out) return { tone: "green", word: "tied out" };
      return {
        tone: "amber",
        word: run.differences === null ? "open" : counted(run.differences, "difference"),
      };
  }
}

/** A reconciliation in the list: made here, kept in the project, or both. */
interface Listed {
  readonly run_id: string;
  readonly at: string;
  readonly local: ReconciliationRun | null;
  readonly kept: KeptRun | null;
}

function listRuns(local: readonly ReconciliationRun[], kept: readonly KeptRun[]): readonly Listed[] {
  const keptById = new Map(kept.map((run) => [run.run_id, run]));
  const here = new Set(local.map((run) => run.run_id));
  return [
    ...local.map((run) => ({
      run_id: run.run_id,
      at: run.started_at,
      local: run,
      kept: keptById.get(run.run_id) ?? null,
    })),
    ...kept
      .filter((run) => !here.has(run.run_id))
      .map((run) => ({ run_id: run.run_id, at: run.created_at, local: null, kept: run })),
  ].toSorted((a, b) => Date.parse(b.at) - Date.parse(a.at));
}

/** Close a period: bring Stripe's exports, see every cent and token matched or explained, decide, close. */
export function FinanceDesk(): ReactNode {
  const place = usePlace();
  const runs = useCall("finance.runs", {}, { refetchMs: 5000 });
  const keptRuns = useCall("finance.kept_runs", {}, { refetchMs: 15_000 });
  const counts = useCall("finance.counts", {}, { refetchMs: 15_000 });
  const page = place.parts[1] ?? null;
  const isRun = page === "runs" || page === null;
  const kept = keptRuns.data?.runs ?? [];
  const list = listRuns(runs.data ?? [], kept);
  const shown = isRun ? (place.parts[2] ?? list[0]?.run_id ?? null) : null;
  const current = list.find((each) => each.run_id === shown) ?? null;
  const isRead = runs.data !== undefined && !keptRuns.isPending;
  return (
    <div className={css.layout}>
      <aside className={css.runs} aria-label="Reconciliations">
        <DeskBar title="Finance">
          <Grow />
          <Button component="a" href="#/finance/new" leftSection={<PlusIcon size={14} />}>
            New
          </Button>
        </DeskBar>
        <Sections page={page} counts={counts.data ?? null} />
        <div className={css.runList}>
          <QueryView query={runs}>
            {() =>
              list.length === 0 ? (
                <div className={css.runsHead}>
                  <span className={css.quiet}>No reconciliation yet.</span>
                </div>
              ) : (
                list.map((each) => (
                  <ListedRun key={each.run_id} of={each} isCurrent={shown === each.run_id} />
                ))
              )
            }
          </QueryView>
        </div>
      </aside>
      <div className={css.main}>
        {page === "cases" ? (
          <>
            <DeskBar title="Differences of all kept runs" />
            <Cases
              runId={null}
              base={["finance", "cases"]}
              query={place.query}
              openId={place.parts[2] ?? null}
            />
          </>
        ) : page === "payments" ? (
          <PaymentsPage />
        ) : page === "revenue" ? (
          <RevenuePage />
        ) : page === "periods" ? (
          <ClosedPeriods />
        ) : page === "events" ? (
          <StripeEvents openId={place.parts[2] ?? null} />
        ) : shown === null ? (
          page === "new" || isRead ? (
            <NewRun />
          ) : (
            <Skeleton />
          )
        ) : current?.local || !current?.kept ? (
          <Run
            key={shown}
            runId={shown}
            known={current?.local ?? null}
            kept={current?.kept ?? null}
            keptRuns={kept}
            isListRead={isRead && !runs.isFetching}
          />
        ) : (
          <KeptElsewhere key={shown} kept={current.kept} keptRuns={kept} />
        )}
      </div>
    </div>
  );
}

function Sections({
  page,
  counts,
}: {
  readonly page: string | null;
  readonly counts: FinanceCounts | null;
}): ReactNode {
  const sections = [
    { id: "payments", name: "Payments", count: 0, tone: "grey" },
    { id: "revenue", name: "Revenue", count: 0, tone: "grey" },
    { id: "cases", name: "Differences to decide", count: counts?.undecided ?? 0, tone: "amber" },
    { id: "events", name: "Stripe events waiting", count: counts?.stripe_events ?? 0, tone: "amber" },
    { id: "periods", name: "Closed periods", count: counts?.closed_periods ?? 0, tone: "grey" },
  ] as const;
  return (
    <nav className={css.sections} aria-label="Finance">
      {sections.map((each) => (
        <a
          key={each.id}
          href={`#${placeAddress(["finance", each.id])}`}
          aria-current={page === each.id ? "page" : undefined}
        >
          <span>{each.name}</span>
          {each.count > 0 ? <Tag tone={each.tone}>{each.count.toLocaleString("en")}</Tag> : null}
        </a>
      ))}
    </nav>
  );
}

function keptSign(of: KeptRun): { readonly tone: Tone; readonly word: string } {
  if (of.is_closed) return { tone: "green", word: "closed" };
  if (!of.is_complete) return { tone: "amber", word: "half kept" };
  return of.undecided > 0
    ? { tone: "amber", word: `${of.undecided.toLocaleString("en")} to decide` }
    : { tone: "green", word: "all decided" };
}

/** A reconciliation is named by its period; where the files have not shown it yet, by when it was made. */
function runName({ kept, local }: Listed): string {
  if (kept) return periodName(kept.period_from, kept.period_to);
  return (local && daysName(local)) ?? "Reconciliation";
}

function ListedRun({ of, isCurrent }: { readonly of: Listed; readonly isCurrent: boolean }): ReactNode {
  const sign = of.kept ? keptSign(of.kept) : of.local ? runSign(of.local) : null;
  const names = of.local?.file_names ?? of.kept?.file_names ?? [];
  return (
    <a
      className={css.run}
      href={`#${placeAddress(["finance", "runs", of.run_id])}`}
      aria-current={isCurrent ? "page" : undefined}
    >
      <span className={css.runHead}>
        <b>{runName(of)}</b>
        {sign ? <Tag tone={sign.tone}>{sign.word}</Tag> : null}
      </span>
      <span className={css.runFiles}>
        <Time at={of.at} form="short" />
        {names.length > 0 ? ", " : ""}
        <bdi>{names.map((name) => clip(cleanText(name ?? ""), 60)).join(", ")}</bdi>
      </span>
    </a>
  );
}

/** Kept by another console, or so long ago that this one has forgotten it. */
function KeptElsewhere({
  kept,
  keptRuns,
}: {
  readonly kept: KeptRun;
  readonly keptRuns: readonly KeptRun[];
}): ReactNode {
  const query = useCall("finance.kept_run", { run_id: kept.run_id }, { staleMs: Number.POSITIVE_INFINITY });
  return (
    <QueryView query={query} skeleton={<Skeleton lines={12} />}>
      {({ report, as_of: asOf }) => (
        <>
          {asOf ? <StaleLine asOf={asOf} /> : null}
          <RunResult
            runId={kept.run_id}
            title={periodName(kept.period_from, kept.period_to)}
            at={kept.created_at}
            differences={kept.differences}
            report={report}
            kept={kept}
            keptRuns={keptRuns}
            isHere={false}
          />
        </>
      )}
    </QueryView>
  );
}
