/** A form that says what an act does before it is done: a preview, a reason and one button. */
import { Button, Textarea } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { sendChord, sendsByChord } from "../lib/keys.ts";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../shared/contract/basics.ts";
import type { AccountAct, Preview, Snapshot } from "../../../shared/contract/corrections.ts";
import { useConsole } from "../lib/console.tsx";
import { useUnsent } from "../lib/unsent.ts";
import { ChangedSince, EffectsView } from "./correction-effects.tsx";
import { showDone, showFailure } from "./notices.tsx";
import { ProposalNote } from "./parts.tsx";
import { PresetReasons } from "./preset-reasons.tsx";
import { ProductionLine } from "./production-ask.tsx";
import { FailureLine } from "./states.tsx";
import css from "./correction.module.css";

type Sent = ReturnType<ReturnType<typeof useConsole>["call"]>;

interface DecisionProps {
  /** Which form it is, and of whom: what is written stays where it is closed without being sent. */
  readonly form: string;
  readonly title: string;
  readonly button: string;
  readonly reasons: readonly string[];
  readonly isDangerous: boolean;
  readonly preview: Preview | null;
  readonly failure: Failure | null;
  readonly isReady: boolean;
  readonly done: string;
  readonly failed: string;
  readonly send: (
    client: ReturnType<typeof useConsole>,
    commandId: string,
    reason: string,
  ) => Promise<Awaited<Sent>>;
  readonly onDone: () => void;
  readonly children?: ReactNode;
}

/** Sends once, whatever happens to the answer; knows what somebody else changed meanwhile. */
function useDecision({ form, preview, isReady, done, failed, send, onDone }: DecisionProps) {
  const client = useConsole();
  const queries = useQueryClient();
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const [reason, setReason, forget] = useUnsent(`decision:${form}`, () => "");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  // The account as it was when the person first saw what the act does.
  const [seen, setSeen] = useState<Snapshot | null>(null);
  if (seen === null && preview !== null) setSeen(preview.effects.before);
  const [isStale, setStale] = useState(false);
  const write = (text: string): void => {
    setReason(() => text);
    setError(null);
  };
  const finish = (): void => {
    forget();
    onDone();
  };
  const submit = async (): Promise<void> => {
    if (busy || !isReady) return;
    if (reason.trim().length < 3) {
      setError("Give a reason of at least 3 characters.");
      return;
    }
    setBusy(true);
    const result = (await send(client, commandId, reason.trim())) as
      | { readonly ok: true; readonly value: { readonly act: AccountAct } }
      | { readonly ok: false; readonly error: Failure };
    setBusy(false);
    await queries.invalidateQueries({
      predicate: ({ queryKey: [name] }) => typeof name === "string" && name.startsWith("users."),
    });
    if (!result.ok) {
      // Not known yet: the same command may only be looked up, never sent as another.
      if (result.error.code === "in_doubt") finish();
      else setCommandId(crypto.randomUUID());
      if (result.error.code === "version_conflict") setStale(true);
      showFailure(failed, result.error);
      return;
    }
    showDone(result.value.act.status === "proposed" ? "Proposed: a second person must approve it" : done);
    finish();
  };
  return { reason, write, error, busy, submit, finish, seen: isStale ? seen : null };
}

/** A form with a preview, a reason and one button. */
export function DecisionForm(props: DecisionProps): ReactNode {
  const { title: heading, button, reasons, isDangerous, preview, failure, isReady, children } = props;
  const { reason, write, error, busy, submit, finish, seen } = useDecision(props);
  return (
    <form
      className={css.correction}
      aria-label={heading}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
      onKeyDown={sendsByChord(() => isReady && void submit())}
    >
      <h2>{heading}</h2>
      {children}
      {failure ? <FailureLine failure={failure} /> : null}
      {seen && preview ? <ChangedSince before={seen} after={preview.effects.before} /> : null}
      {preview ? (
        <div className={css.preview} aria-busy={!isReady}>
          <EffectsView effects={preview.effects} />
        </div>
      ) : null}
      {preview?.why ? <ProposalNote why={preview.why} /> : null}
      <Textarea
        label="Reason"
        description={`Kept in the audit and in the ledger. ${sendChord()} sends.`}
        autosize
        spellCheck
        minRows={2}
        maxRows={6}
        maxLength={1000}
        data-autofocus={children ? undefined : true}
        value={reason}
        error={error}
        onChange={(event) => write(event.currentTarget.value)}
      />
      <PresetReasons reasons={reasons} onPick={write} />
      <ProductionLine />
      <div className={css.formButtons}>
        <Button onClick={finish}>Cancel</Button>
        <Button
          type="submit"
          variant="filled"
          color={isDangerous ? "danger" : "accent"}
          loading={busy}
          disabled={!isReady}
        >
          {preview?.why ? "Propose" : button}
        </Button>
      </div>
    </form>
  );
}
