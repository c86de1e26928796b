import { ActionIcon, Button, Progress, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useRef, useState } from "react";
import { useNow } from "../../lib/clock.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { formatBytes } from "../../lib/format.ts";
import { useLive } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { CheckIcon, CloseIcon, FileIcon, UploadIcon, WarningIcon } from "../../ui/icons.tsx";
import { Section } from "../../ui/parts.tsx";
import { FailureLine } from "../../ui/states.tsx";
import type { Failure } from "../../../../shared/contract/basics.ts";
import css from "./finance.module.css";
import own from "./new-run.module.css";
import { type Days, daysOf, PERIOD_CHOICES, type PeriodChoice, periodProblem } from "./period.ts";
import { StripeAccount } from "./stripe-account.tsx";
import { type FileInHand, useUploads } from "./uploads.ts";

/** Choose where Stripe's side comes from, choose the period, start. */
export function NewRun(): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const { files, clear } = useUploads();
  const stripe = useCall("finance.stripe", {});
  const [isStripeChosen, setStripeChosen] = useState<boolean | null>(null);
  const [choice, setChoice] = useState<PeriodChoice | null>(null);
  const [custom, setCustom] = useState<Days>({ from: "", to: "" });
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const closedTo = useLastClose();
  const now = useNow(60_000);

  const connection = stripe.data?.connection ?? null;
  const canRead = connection !== null && connection.key_storage !== "missing";
  // A connected account is used unless the person brought files instead.
  const isStripeRead = canRead && (isStripeChosen ?? files.length === 0);
  const period = choice ?? (isStripeRead ? "last_month" : "files");
  const days = daysOf(period, now, closedTo, custom);
  const problem = periodProblem(days, isStripeRead);
  const ready = files.filter((file) => file.status === "ready");
  const isSending = files.some((file) => file.status === "sending");

  const start = async (): Promise<void> => {
    setBusy(true);
    setFailure(null);
    const result = await client.call("finance.start_run", {
      upload_ids: ready.flatMap((file) => file.uploadId ?? []),
      stripe_api: isStripeRead,
      from: days.from || null,
      to: days.to || null,
    });
    setBusy(false);
    if (!result.ok) return setFailure(result.error);
    clear();
    void queries.invalidateQueries({ queryKey: ["finance.runs"] });
    navigate(placeAddress(["finance", "runs", result.value.run_id]));
  };
  return (
    <div className={css.scroll}>
      <div className={css.page}>
        <h1>Reconcile Stripe against the ledger</h1>
        <div className={own.sources}>
          <StripeAccount isUsed={isStripeRead} onUse={setStripeChosen} />
          <Exports />
        </div>
        <FileList />
        <Section title="Period">
          <PeriodPicker
            choice={period}
            days={days}
            canUse={(one) =>
              one === "files" ? !isStripeRead : one === "since_close" ? closedTo !== null : true
            }
            onChoose={setChoice}
            onDays={(next) => {
              setCustom(next);
              setChoice("custom");
            }}
          />
          {problem ? (
            <span className={own.problem} role="alert">
              {problem}
            </span>
          ) : (
            <span className={css.quiet}>
              Days in UTC, both included.{" "}
              {days.from === "" || days.to === ""
                ? "The days left empty are those that the files cover; what lies outside stays unknown."
                : null}
            </span>
          )}
        </Section>
        {failure ? <FailureLine failure={failure} onRetry={() => void start()} /> : null}
        <div>
          <Button
            variant="filled"
            loading={busy}
            disabled={(ready.length === 0 && !isStripeRead) || isSending || problem !== null}
            onClick={() => void start()}
          >
            {startWords(isStripeRead, ready.length)}
          </Button>
        </div>
      </div>
    </div>
  );
}

function startWords(isStripeRead: boolean, files: number): string {
  if (files === 0) return isStripeRead ? "Read Stripe and start" : "Start";
  const withFiles = `with ${counted(files, "file")}`;
  return isStripeRead ? `Read Stripe and start, ${withFiles} too` : `Start ${withFiles}`;
}

/** Where the last closed period ends; null where none is, or it is not known yet. */
function useLastClose(): string | null {
  const { data } = useCall("finance.closed_periods", {}, { staleMs: 60_000 });
  return (
    data?.periods
      .map((period) => period.period_to)
      .toSorted()
      .at(-1) ?? null
  );
}

const choiceWords: Readonly<Record<PeriodChoice, string>> = {
  this_month: "This month",
  last_month: "Last month",
  since_close: "Since the last close",
  files: "As the files cover",
  custom: "Other days",
};

function PeriodPicker({
  choice,
  days,
  canUse,
  onChoose,
  onDays,
}: {
  readonly choice: PeriodChoice;
  readonly days: Days;
  readonly canUse: (choice: PeriodChoice) => boolean;
  readonly onChoose: (choice: PeriodChoice) => void;
  readonly onDays: (days: Days) => void;
}): ReactNode {
  return (
    <>
      <div className={own.presets} role="radiogroup" aria-label="Period">
        {PERIOD_CHOICES.map((one) => (
          <Button
            key={one}
            role="radio"
            aria-checked={one === choice}
            variant={one === choice ? "light" : "default"}
            disabled={!canUse(one)}
            title={
              canUse(one)
                ? undefined
                : one === "files"
                  ? "Stripe's API has no days of its own: choose which to read."
                  : "No period has been closed yet."
            }
            onClick={() => onChoose(one)}
          >
            {choiceWords[one]}
          </Button>
        ))}
      </div>
      <div className={own.days}>
        <TextInput
          type="date"
          label="From"
          value={days.from}
          onChange={(event) => onDays({ ...days, from: event.currentTarget.value })}
        />
        <TextInput
          type="date"
          label="To, included"
          value={days.to}
          onChange={(event) => onDays({ ...days, to: event.currentTarget.value })}
        />
      </div>
    </>
  );
}

function Exports(): ReactNode {
  const client = useConsole();
  const { files, add } = useUploads();
  const sampleFolder = useLive((state) => state.connection?.sample_traffic?.stripe_folder);
  const [isOver, setOver] = useState(false);
  const chooser = useRef<HTMLInputElement>(null);
  return (
    <section
      className={own.drop}
      aria-label="Files"
      data-over={isOver || undefined}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        void add(client, [...event.dataTransfer.files]);
      }}
    >
      <UploadIcon size={22} />
      <b>Drop Stripe exports here</b>
      <span className={css.quiet}>
        Payments, balance history, itemized balance change, payout reconciliation or disputes, as Stripe gives
        them. Several at once are taken together.
      </span>
      {sampleFolder ? (
        <span className={css.quiet}>
          Exports for the sample data, with one difference of every class in them: <code>{sampleFolder}</code>
        </span>
      ) : null}
      <Button variant={files.length === 0 ? "filled" : "default"} onClick={() => chooser.current?.click()}>
        Choose files
      </Button>
      <input
        ref={chooser}
        type="file"
        hidden
        multiple
        accept=".csv,text/csv,text/plain"
        data-testid="stripe-files"
        onChange={(event) => {
          void add(client, [...(event.currentTarget.files ?? [])]);
          event.currentTarget.value = "";
        }}
      />
    </section>
  );
}

function FileList(): ReactNode {
  const { files, drop } = useUploads();
  if (files.length === 0) return null;
  return (
    <div className={own.files}>
      {files.map((file) => (
        <FileLine key={file.key} file={file} onDrop={() => drop(file.key)} />
      ))}
    </div>
  );
}

function FileLine({ file, onDrop }: { readonly file: FileInHand; readonly onDrop: () => void }): ReactNode {
  const percent = file.sizeBytes === 0 ? 0 : (100 * file.sentBytes) / file.sizeBytes;
  return (
    <div className={own.file}>
      {file.status === "ready" ? (
        <CheckIcon size={15} style={{ color: "var(--c-green)" }} />
      ) : file.status === "failed" ? (
        <WarningIcon size={15} style={{ color: "var(--c-red)" }} />
      ) : (
        <FileIcon size={15} />
      )}
      <bdi className={own.fileName}>{clip(cleanText(file.name), 120)}</bdi>
      <span className={css.quiet}>{formatBytes(file.sizeBytes)}</span>
      <span className={css.quiet} style={{ minWidth: 110, textAlign: "right" }}>
        {file.status === "ready" ? (
          <span title={file.sha256 ? `SHA-256 ${file.sha256}` : undefined}>
            {file.sha256 ? `sha ${file.sha256.slice(0, 10)}` : "ready"}
          </span>
        ) : file.status === "failed" ? (
          "not taken"
        ) : (
          <Progress value={percent} aria-label={`Sending ${cleanText(file.name)}`} />
        )}
      </span>
      <ActionIcon aria-label={`Drop ${cleanText(file.name)}`} onClick={onDrop}>
        <CloseIcon size={14} />
      </ActionIcon>
      {file.failure ? (
        <span className={own.fileProblem}>
          {file.failure.message} {file.failure.advice}
        </span>
      ) : null}
    </div>
  );
}
