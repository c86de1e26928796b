/** The end of a period: what still blocks it, signing it off, and the seals of those that are closed. */
import { Button, Modal, Textarea } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { ClosedPeriod, Closing } from "../../../../shared/contract/finance.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { saveFile } from "../../lib/csv.ts";
import { formatTokens } from "../../lib/format.ts";
import { useWhyNot } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { counted } from "../../lib/text.ts";
import { DeskBar } from "../../ui/desk.tsx";
import { CheckIcon, CloseIcon, DownloadIcon, InfoIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { CopyButton, Facts, Note, SafeText, Section, Tag, Time, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { EmptyView, QueryView, StaleLine } from "../../ui/states.tsx";
import { useFinanceRefresh, useOperator } from "./case-acts.tsx";
import css from "./finance.module.css";
import { periodName, periodText } from "./period.ts";
import { minorMoney, statusName } from "./words.ts";

export function ClosePage({ runId }: { readonly runId: string }): ReactNode {
  const query = useCall("finance.closing", { run_id: runId }, { refetchMs: 10_000 });
  return (
    <div className={css.scroll}>
      <QueryView query={query}>
        {(closing) => (
          <div className={css.page}>
            <h1>Close {periodName(closing.run.period_from, closing.run.period_to)}</h1>
            {closing.run.is_closed ? (
              <Note tone="green">
                This period is closed. <a href="#/finance/periods">See its seal</a>.
              </Note>
            ) : null}
            <Checklist closing={closing} runId={runId} />
            {closing.decided.length > 0 ? <Decided closing={closing} /> : null}
            {closing.run.is_closed ? null : <SignOff closing={closing} runId={runId} />}
          </div>
        )}
      </QueryView>
    </div>
  );
}

/** Where a blocked check is put right. */
function wayOut(check: string, runId: string): { readonly href: string; readonly word: string } | null {
  switch (check) {
    case "decided":
      return { href: placeAddress(["finance", "cases"]), word: "Decide" };
    case "posted":
      return { href: placeAddress(["finance", "cases"], { status: "proposed" }), word: "Show" };
    case "verified":
      return { href: placeAddress(["finance", "new"]), word: "Reconcile again" };
    case "newest_run":
      return { href: placeAddress(["finance"]), word: "Show runs" };
    case "unexplained":
      return { href: placeAddress(["finance", "runs", runId]), word: "Show" };
    case "stripe_events":
      return { href: placeAddress(["finance", "events"]), word: "Show" };
    default:
      return null;
  }
}

function Checklist({ closing, runId }: { readonly closing: Closing; readonly runId: string }): ReactNode {
  return (
    <ul className={css.checks} aria-label="Checklist">
      {closing.checks.map((each) => {
        const state = each.ok ? "ok" : each.blocks ? "blocks" : "note";
        const way = each.ok || closing.run.is_closed ? null : wayOut(each.check, runId);
        return (
          <li key={each.check} data-state={state}>
            {state === "ok" ? <CheckIcon /> : state === "blocks" ? <CloseIcon /> : <InfoIcon />}
            <span>
              {each.sentence}
              {state === "blocks" ? <Tag tone="red">blocks</Tag> : null}
            </span>
            {way ? <a href={`#${way.href}`}>{way.word}</a> : null}
          </li>
        );
      })}
    </ul>
  );
}

function Decided({ closing }: { readonly closing: Closing }): ReactNode {
  return (
    <Section title="What was decided">
      <PlainTable
        label="What was decided"
        rows={closing.decided}
        rowKey={(each) => `${each.status} ${each.currency}`}
        empty=""
        columns={[
          { id: "s", header: "Decision", width: 160, cell: (each) => statusName(each.status) },
          {
            id: "n",
            header: "Differences",
            width: 90,
            align: "right",
            cell: (each) => formatTokens(each.count),
          },
          {
            id: "m",
            header: "Money",
            width: 110,
            align: "right",
            cell: (each) => minorMoney(each.amount_minor, each.currency),
          },
          {
            id: "t",
            header: "Tokens",
            width: 110,
            align: "right",
            cell: (each) => formatTokens(each.tokens),
          },
        ]}
      />
    </Section>
  );
}

function SignOff({ closing, runId }: { readonly closing: Closing; readonly runId: string }): ReactNode {
  const client = useConsole();
  const operator = useOperator();
  const whyNot = useWhyNot();
  const refresh = useFinanceRefresh();
  const [commandId] = useState(() => crypto.randomUUID());
  const [words, setWords] = useState("");
  const [asked, setAsked] = useState(false);
  const [busy, setBusy] = useState(false);
  const period = periodText(closing.run.period_from, closing.run.period_to);
  const carried = closing.decided.filter((each) => each.status === "carried_forward");
  const close = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("finance.close_period", {
      command_id: commandId,
      run_id: runId,
      sign_off: words.trim(),
    });
    setBusy(false);
    setAsked(false);
    refresh();
    if (!result.ok) return showFailure("Not closed", result.error);
    showDone(`Closed and sealed: ${period}`);
    navigate(placeAddress(["finance", "periods"]));
  };
  return (
    <Section title="Sign off">
      <div className={css.signOff}>
        <Textarea
          label={`What you sign, as ${operator}`}
          description="Sealed with the report, the hashes of its files, and every case with its history."
          autosize
          minRows={2}
          maxLength={2000}
          value={words}
          onChange={(event) => setWords(event.currentTarget.value)}
        />
        <div className={css.buttons}>
          <Button
            variant="filled"
            disabled={!closing.can_close || whyNot !== null || words.trim().length < 3}
            onClick={() => setAsked(true)}
          >
            Close the period…
          </Button>
          {closing.can_close ? null : (
            <span className={css.quiet}>Something in the list above still blocks it.</span>
          )}
          {whyNot === null ? null : <span className={css.quiet}>{whyNot}.</span>}
        </div>
      </div>
      <Modal opened={asked} onClose={() => setAsked(false)} title={`Close ${period}?`}>
        <div className={css.radius}>
          <span>
            This cannot be undone. What comes later for this period is posted in the next one
            {carried.length > 0
              ? `, and ${counted(
                  carried.reduce((sum, each) => sum + each.count, 0),
                  "difference",
                )} carried forward must be decided again there`
              : ""}
            .
          </span>
          <div className={css.formButtons}>
            <Button data-autofocus onClick={() => setAsked(false)}>
              Cancel
            </Button>
            <Button variant="filled" loading={busy} onClick={() => void close()}>
              Close and seal
            </Button>
          </div>
        </div>
      </Modal>
    </Section>
  );
}

/** How far a kept run is on its way to a closed period, in one line. */
export function Standing({
  runId,
  closing: { run, checks, can_close: canClose, decided },
}: {
  readonly runId: string;
  readonly closing: Closing;
}): ReactNode {
  const address = placeAddress(["finance", "runs", runId, "close"]);
  if (run.is_closed)
    return (
      <Note tone="green">
        Closed and sealed. <a href="#/finance/periods">See its seal</a>.
      </Note>
    );
  const blocking = checks.filter((each) => each.blocks && !each.ok);
  const sum = (status: string): number =>
    decided.filter((each) => each.status === status).reduce((total, each) => total + each.count, 0);
  const parts = [
    `${sum("verified").toLocaleString("en")} verified`,
    `${sum("carried_forward").toLocaleString("en")} carried forward`,
    `${sum("written_off").toLocaleString("en")} written off`,
  ].join(", ");
  return (
    <Note tone={canClose ? "green" : "amber"}>
      {canClose
        ? `Zero unexplained, and every difference is decided: ${parts}. `
        : `To close the period: ${blocking.map((each) => each.sentence).join("; ")}. `}
      <a href={`#${address}`}>{canClose ? "Close the period" : "See the checklist"}</a>.
    </Note>
  );
}

export function ClosedPeriods(): ReactNode {
  const query = useCall("finance.closed_periods", {});
  return (
    <>
      <DeskBar title="Closed periods" />
      <div className={css.scroll}>
        <QueryView query={query}>
          {({ periods, as_of: asOf }) => (
            <>
              {asOf ? <StaleLine asOf={asOf} /> : null}
              {periods.length === 0 ? (
                <EmptyView title="No period is closed yet">
                  Keep a reconciliation of a period that has ended, decide its differences, then close it.
                </EmptyView>
              ) : (
                <div className={css.page}>
                  {periods.map((each) => (
                    <Closed key={each.run_id} of={each} />
                  ))}
                </div>
              )}
            </>
          )}
        </QueryView>
      </div>
    </>
  );
}

function Closed({ of }: { readonly of: ClosedPeriod }): ReactNode {
  const client = useConsole();
  const [busy, setBusy] = useState(false);
  const [isRight, setRight] = useState<boolean | null>(null);
  const check = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("finance.sealed_period", { run_id: of.run_id });
    setBusy(false);
    if (!result.ok) return showFailure("Not checked", result.error);
    setRight(result.value.is_right && result.value.seal === of.seal);
    saveFile(result.value.file_name, "application/json", result.value.text);
  };
  return (
    <Section
      title={periodText(of.period_from, of.period_to)}
      aside={
        <Tag tone={of.is_intact ? "green" : "red"}>{of.is_intact ? "seal fits" : "seal does not fit"}</Tag>
      }
    >
      {of.is_intact ? null : (
        <Note tone="red" role="alert">
          What is stored is not what was sealed, or the seal before it is gone. Somebody with full rights
          changed the table: compare with a copy of the sealed file.
        </Note>
      )}
      <Facts
        rows={[
          [
            "Closed",
            <span key="c">
              <Time at={of.closed_at} form="full" /> by <UserName name={of.closed_by} />
            </span>,
          ],
          ["Signed", <SafeText key="s" text={of.sign_off ?? "without words"} length={600} />],
          ["Cases sealed", of.cases.toLocaleString("en")],
          [
            "Seal",
            <span key="h" className={css.seal}>
              <code>{of.seal}</code> <CopyButton text={of.seal} label="Copy the seal" />
            </span>,
          ],
          [
            "Seal before",
            of.seal_before ? <code key="b">{of.seal_before.slice(0, 16)}…</code> : "none: the first",
          ],
          [
            "Run",
            <a key="r" href={`#${placeAddress(["finance", "runs", of.run_id])}`}>
              Its report
            </a>,
          ],
        ]}
      />
      <div className={css.buttons}>
        <Button loading={busy} leftSection={<DownloadIcon size={14} />} onClick={() => void check()}>
          Check and download
        </Button>
        <span className={css.quiet} role="status">
          {isRight === null
            ? "The file's own SHA-256 is the seal: sha256sum FILE."
            : isRight
              ? "Checked: this console worked out the same SHA-256."
              : "This console works out another SHA-256."}
        </span>
      </div>
    </Section>
  );
}
