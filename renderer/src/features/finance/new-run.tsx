import { ActionIcon, Button, Progress, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useRef, useState } from "react";
import { useConsole } from "../../lib/console.tsx";
import { formatBytes } from "../../lib/format.ts";
import { useLive } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { CheckIcon, CloseIcon, FileIcon, UploadIcon, WarningIcon } from "../../ui/icons.tsx";
import { Section } from "../../ui/parts.tsx";
import { FailureLine } from "../../ui/states.tsx";
import type { Failure } from "../../../../shared/contract/operations.ts";
import css from "./finance.module.css";
import { type FileInHand, useUploads } from "./uploads.ts";

/** Bring exports, say the period, start. */
export function NewRun(): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const { files, add, drop, clear } = useUploads();
  const sampleFolder = useLive((state) => state.connection?.sample_traffic?.stripe_folder);
  const [isOver, setOver] = useState(false);
  const [from, setFrom] = useState("");
  const [to, setTo] = useState("");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const chooser = useRef<HTMLInputElement>(null);
  const ready = files.filter((file) => file.status === "ready");
  const sending = files.some((file) => file.status === "sending");
  const badPeriod = from !== "" && to !== "" && from > to ? "The end is before the start." : null;

  const start = async (): Promise<void> => {
    setBusy(true);
    setFailure(null);
    const result = await client.call("reconciliation.start", {
      upload_ids: ready.flatMap((file) => file.uploadId ?? []),
      from: from || null,
      to: to || null,
    });
    setBusy(false);
    if (!result.ok) return setFailure(result.error);
    clear();
    void queries.invalidateQueries({ queryKey: ["reconciliation.runs"] });
    navigate(placeAddress(["finance", "runs", result.value.run_id]));
  };
  return (
    <div className={css.scroll}>
      <div className={css.page}>
        <h1>Reconcile Stripe against the ledger</h1>
        <section
          className={css.drop}
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
            Payments, balance history, itemized balance change, payout reconciliation or disputes, as Stripe
            gives them. Several at once are taken together.
          </span>
          {sampleFolder ? (
            <span className={css.quiet}>
              Exports for the sample data, with one difference of every class in them:{" "}
              <code>{sampleFolder}</code>
            </span>
          ) : null}
          <Button
            variant={files.length === 0 ? "filled" : "default"}
            onClick={() => chooser.current?.click()}
          >
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
        {files.length > 0 ? (
          <div className={css.files}>
            {files.map((file) => (
              <FileLine key={file.key} file={file} onDrop={() => drop(file.key)} />
            ))}
          </div>
        ) : null}
        <Section title="Period">
          <div className={css.period}>
            <TextInput
              type="date"
              label="From"
              value={from}
              onChange={(event) => setFrom(event.currentTarget.value)}
            />
            <TextInput
              type="date"
              label="To, included"
              value={to}
              error={badPeriod}
              onChange={(event) => setTo(event.currentTarget.value)}
            />
            <span className={css.quiet}>
              Days in UTC. Left empty, the period is what the files cover; what lies outside it stays unknown.
            </span>
          </div>
        </Section>
        {failure ? <FailureLine failure={failure} onRetry={() => void start()} /> : null}
        <div>
          <Button
            variant="filled"
            loading={busy}
            disabled={ready.length === 0 || sending || badPeriod !== null}
            onClick={() => void start()}
          >
            {ready.length === 0 ? "Start" : `Start with ${counted(ready.length, "file")}`}
          </Button>
        </div>
      </div>
    </div>
  );
}

function FileLine({ file, onDrop }: { readonly file: FileInHand; readonly onDrop: () => void }): ReactNode {
  const percent = file.sizeBytes === 0 ? 0 : (100 * file.sentBytes) / file.sizeBytes;
  return (
    <div className={css.file}>
      {file.status === "ready" ? (
        <CheckIcon size={15} style={{ color: "var(--c-green)" }} />
      ) : file.status === "failed" ? (
        <WarningIcon size={15} style={{ color: "var(--c-red)" }} />
      ) : (
        <FileIcon size={15} />
      )}
      <bdi className={css.fileName}>{clip(cleanText(file.name), 120)}</bdi>
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
        <span className={css.fileProblem}>
          {file.failure.message} {file.failure.advice}
        </span>
      ) : null}
    </div>
  );
}
