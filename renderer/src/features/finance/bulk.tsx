/** Acts on many differences: first what they would touch, then the doing. */
import { Button, Modal, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { BulkPreview, CaseAction, FinanceCase } from "../../../../shared/contract/finance.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { useMayAct } from "../../lib/live.ts";
import { counted } from "../../lib/text.ts";
import { useUnsent } from "../../lib/unsent.ts";
import { showDone, showFailure, showNotice } from "../../ui/notices.tsx";
import { Facts, Id, Note, Section } from "../../ui/parts.tsx";
import { QueryView } from "../../ui/states.tsx";
import { actionWords, doneText, useFinanceRefresh, useOperator } from "./case-acts.tsx";
import css from "./finance.module.css";
import { moneyList } from "./words.ts";

type Bulk = CaseAction | "post";
const bulkActs: readonly Bulk[] = [
  "propose",
  "approve",
  "post",
  "assign",
  "investigate",
  "carry_forward",
  "write_off",
];
const asksWhy: ReadonlySet<Bulk> = new Set(["carry_forward", "write_off"]);
/** As many refusals as a person reads. */
const REASONS_SHOWN = 50;

export function BulkBar({
  cases,
  onClear,
}: {
  readonly cases: readonly FinanceCase[];
  readonly onClear: () => void;
}): ReactNode {
  const [action, setAction] = useState<Bulk | null>(null);
  const isLive = useMayAct();
  return (
    <div className={css.bulk} role="toolbar" aria-label="Selected differences">
      <b>{cases.length.toLocaleString("en")} selected</b>
      {bulkActs.map((each) => (
        <Button key={each} disabled={!isLive} onClick={() => setAction(each)}>
          {actionWords[each][0]}…
        </Button>
      ))}
      <button type="button" className={css.linkButton} onClick={onClear}>
        Clear (Esc)
      </button>
      {action ? (
        <BulkDialog
          action={action}
          cases={cases}
          onClose={() => setAction(null)}
          onDone={() => {
            setAction(null);
            onClear();
          }}
        />
      ) : null}
    </div>
  );
}

function BulkDialog({
  action,
  cases,
  onClose,
  onDone,
}: {
  readonly action: Bulk;
  readonly cases: readonly FinanceCase[];
  readonly onClose: () => void;
  readonly onDone: () => void;
}): ReactNode {
  const [ids] = useState(() => cases.map((each) => each.difference_id));
  const preview = useCall("finance.preview_act", { difference_ids: ids, action }, { staleMs: 0 });
  return (
    <Modal
      opened
      onClose={onClose}
      title={`${actionWords[action][0]}: ${counted(ids.length, "difference")}`}
      size={560}
    >
      <QueryView query={preview}>
        {(radius) => (
          <Radius
            key={radius.included.length}
            action={action}
            radius={radius}
            onClose={onClose}
            onDone={onDone}
          />
        )}
      </QueryView>
    </Modal>
  );
}

/** What an act on many would touch, and what it leaves out. */
function RadiusFacts({ action, radius }: { readonly action: Bulk; readonly radius: BulkPreview }): ReactNode {
  const { included, excluded } = radius;
  return (
    <>
      <Facts
        rows={[
          ["Included", counted(included.length, "difference")],
          ["Users", counted(radius.users, "user")],
          ["Money at stake", moneyList(radius.money)],
          ["Tokens at stake", formatTokens(radius.tokens)],
          ...(action === "post"
            ? ([
                ["Tokens given", formatTokens(radius.tokens_added)],
                ["Tokens taken", formatTokens(radius.tokens_taken)],
              ] as const)
            : []),
        ]}
      />
      {radius.waits_for_approval > 0 ? (
        <Note tone="amber">
          {counted(radius.waits_for_approval, "write-off")} above what one person may decide alone: only
          proposed, until a second person approves.
        </Note>
      ) : null}
      {excluded.length > 0 ? (
        <Section title={`${counted(excluded.length, "difference")} cannot be included`}>
          <ul className={css.excluded}>
            {excluded.slice(0, REASONS_SHOWN).map((each) => (
              <li key={each.difference_id}>
                <Id value={each.difference_id} head={28} tail={6} copy={false} />
                <span className={css.quiet}>{each.message}</span>
              </li>
            ))}
          </ul>
          {excluded.length > REASONS_SHOWN ? (
            <span className={css.quiet}>
              and {(excluded.length - REASONS_SHOWN).toLocaleString("en")} more
            </span>
          ) : null}
        </Section>
      ) : null}
    </>
  );
}

function Radius({
  action,
  radius,
  onClose,
  onDone,
}: {
  readonly action: Bulk;
  readonly radius: BulkPreview;
  readonly onClose: () => void;
  readonly onDone: () => void;
}): ReactNode {
  const client = useConsole();
  const operator = useOperator();
  const refresh = useFinanceRefresh();
  const [commandId] = useState(() => crypto.randomUUID());
  const [reason, setReason, forget] = useUnsent(`cases:${action}`, () => "");
  const [assignee, setAssignee] = useState(operator);
  const [busy, setBusy] = useState(false);
  const leave = (next: () => void) => (): void => {
    forget();
    next();
  };
  const { included } = radius;
  const [name] = actionWords[action];
  const isReady = included.length > 0 && (!asksWhy.has(action) || reason.trim().length >= 3);

  const run = async (): Promise<void> => {
    const input = {
      difference_ids: included.map((each) => each.difference_id),
      versions: Object.fromEntries(included.map((each) => [each.difference_id, each.version])),
    };
    setBusy(true);
    if (action === "post") {
      const result = await client.call("finance.post", input);
      setBusy(false);
      refresh();
      if (!result.ok) return showFailure("Not posted", result.error);
      const { posted, refused, unsent } = result.value;
      const [first] = refused;
      if (first)
        showNotice(
          "error",
          `Posted ${posted.length.toLocaleString("en")}, refused ${refused.length.toLocaleString("en")}, not tried ${unsent.toLocaleString("en")}`,
          `${first.failure.message} ${first.failure.advice ?? ""}`,
        );
      else
        showDone(
          `Posted: ${counted(posted.length, "correction")}. Reconcile the same files again to verify them.`,
        );
      return onDone();
    }
    const result = await client.call("finance.act", {
      ...input,
      command_id: commandId,
      action,
      reason: reason.trim() || null,
      ...(action === "assign" ? { assigned_to: assignee.trim() || null } : {}),
    });
    setBusy(false);
    refresh();
    if (!result.ok) return showFailure(`Not done: ${name.toLowerCase()}`, result.error);
    showDone(doneText(action, result.value.cases));
    leave(onDone)();
  };
  return (
    <form
      className={css.radius}
      onSubmit={(event) => {
        event.preventDefault();
        if (isReady) void run();
      }}
    >
      <RadiusFacts action={action} radius={radius} />
      {action === "assign" ? (
        <TextInput
          label="To"
          data-autofocus
          maxLength={255}
          value={assignee}
          onChange={(event) => setAssignee(event.currentTarget.value)}
        />
      ) : action === "post" || action === "investigate" ? null : (
        <Textarea
          label={asksWhy.has(action) ? "Reason" : "Note, if there is one"}
          description={asksWhy.has(action) ? "Kept with each of them." : undefined}
          data-autofocus
          autosize
          minRows={2}
          maxLength={2000}
          value={reason}
          onChange={({ currentTarget: { value } }) => setReason(() => value)}
        />
      )}
      <div className={css.formButtons}>
        <Button onClick={leave(onClose)}>Cancel</Button>
        <Button type="submit" variant="filled" disabled={!isReady} loading={busy}>
          {name} {included.length.toLocaleString("en")}
        </Button>
      </div>
    </form>
  );
}
