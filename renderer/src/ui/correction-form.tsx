/** Forms of corrections: what is wanted, exactly what it will do, and why. */
import { Button, Popover } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { type ReactNode, useState } from "react";
import {
  type AccountAct,
  type Correction,
  type CorrectionKind,
  correction as correctionSchema,
  correctionWords,
} from "../../../shared/contract/corrections.ts";
import { toFailure, useCall } from "../lib/console.tsx";
import { useMayAct, useWhyNot } from "../lib/live.ts";
import { codeWords } from "../lib/text.ts";
import { useUnsent } from "../lib/unsent.ts";
import { askedOf, CorrectionFields, inDays } from "./correction-fields.tsx";
import { DecisionForm } from "./decision-form.tsx";
import css from "./correction.module.css";

/** A button whose form opens in its place. */
export function CorrectionButton({
  kind,
  userId,
  plan,
  fields = {},
  isReported = false,
  icon,
  label,
  variant = "default",
  opened: openedOutside,
  onOpened,
}: {
  readonly kind: CorrectionKind;
  readonly userId: string;
  /** The plan the user is on. */
  readonly plan: string;
  /** Fields known from where the form was opened: the call, or how its hold ends. */
  readonly fields?: Readonly<Record<string, unknown>>;
  /** The call's usage was reported: it need not be typed. */
  readonly isReported?: boolean;
  readonly icon?: ReactNode;
  readonly label?: string;
  readonly variant?: string;
  readonly opened?: boolean;
  readonly onOpened?: (opened: boolean) => void;
}): ReactNode {
  const [openedHere, setOpenedHere] = useState(false);
  const whyNot = useWhyNot();
  const opened = openedOutside ?? openedHere;
  const setOpened = onOpened ?? setOpenedHere;
  const { title, key } = correctionWords[kind];
  return (
    <Popover
      opened={opened}
      onChange={setOpened}
      position={fields["request_id"] === undefined ? "bottom-start" : "bottom-end"}
      trapFocus
      returnFocus
    >
      <Popover.Target>
        <Button
          leftSection={icon}
          variant={variant}
          disabled={whyNot !== null}
          title={whyNot ?? (key ? `${title} (${key})` : title)}
          aria-haspopup="dialog"
          onClick={() => setOpened(!opened)}
        >
          {label ?? title}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        {opened ? (
          <CorrectionForm
            kind={kind}
            userId={userId}
            plan={plan}
            given={fields}
            isReported={isReported}
            onDone={() => setOpened(false)}
          />
        ) : null}
      </Popover.Dropdown>
    </Popover>
  );
}

function CorrectionForm({
  kind,
  userId,
  plan,
  given,
  isReported,
  onDone,
}: {
  readonly kind: CorrectionKind;
  readonly userId: string;
  readonly plan: string;
  readonly given: Readonly<Record<string, unknown>>;
  readonly isReported: boolean;
  readonly onDone: () => void;
}): ReactNode {
  const words = correctionWords[kind];
  const form = `${kind} ${userId} ${JSON.stringify(given)}`;
  const [fields, setFields, forget] = useUnsent<Readonly<Record<string, unknown>>>(form, () => ({
    kind,
    ...(kind === "give_tokens" ? { lot_kind: "promotional", expires_at: null } : {}),
    ...(kind === "change_plan" ? { when: "now" } : {}),
    ...(kind === "raise_limit" ? { daily_limit: null, monthly_limit: null, until: inDays(1) } : {}),
    ...(kind === "end_hold" ? { action: "release", input_tokens: null, output_tokens: null } : {}),
    ...given,
  }));
  const set = (more: Readonly<Record<string, unknown>>): void =>
    setFields((before) => ({ ...before, ...more }));
  const isCounted = typeof fields["input_tokens"] === "number" && typeof fields["output_tokens"] === "number";
  const wanted = correctionSchema.safeParse(
    fields["action"] === "settle" && !isReported && !isCounted ? null : askedOf(fields),
  );
  const [settled] = useDebouncedValue(wanted.data, 250);
  const isSettled = JSON.stringify(settled) === JSON.stringify(wanted.data);
  const preview = useCall(
    "users.preview",
    { user_id: userId, correction: settled as Correction },
    // While a new preview is on its way the former one stays, pale: what one is about to press must not move.
    { enabled: settled !== undefined, staleMs: 0, keepPrevious: true },
  );
  const isPreviewed =
    wanted.success && isSettled && preview.data !== undefined && !preview.isPlaceholderData && !preview.error;
  return (
    <DecisionForm
      form={form}
      title={title(kind, fields)}
      button={words.title}
      reasons={words.reasons}
      isDangerous={words.isDangerous ?? false}
      preview={wanted.success ? (preview.data ?? null) : null}
      failure={wanted.success && isSettled && preview.error ? toFailure(preview.error) : null}
      isReady={isPreviewed}
      onDone={() => {
        forget();
        onDone();
      }}
      done={words.done}
      failed={words.failed}
      send={(client, commandId, reason) =>
        client.call("users.correct", {
          command_id: commandId,
          user_id: userId,
          correction: wanted.data as Correction,
          reason,
          expected_version: preview.data?.version ?? null,
        })
      }
    >
      <CorrectionFields kind={kind} fields={fields} set={set} plan={plan} given={given} />
    </DecisionForm>
  );
}

/** "Give tokens", "Release the hold": what the form does, for what was chosen. */
function title(kind: CorrectionKind, fields: Readonly<Record<string, unknown>>): string {
  if (kind !== "end_hold") return correctionWords[kind].title;
  return fields["action"] === "settle" ? "Settle this call" : "Release this hold";
}

/** Takes an act back, after showing what that does now. */
export function UndoButton({ act }: { readonly act: AccountAct }): ReactNode {
  const [opened, setOpened] = useState(false);
  const isLive = useMayAct();
  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-end" trapFocus returnFocus>
      <Popover.Target>
        <Button disabled={!isLive} aria-haspopup="dialog" onClick={() => setOpened(!opened)}>
          Undo
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        {opened ? <UndoForm act={act} onDone={() => setOpened(false)} /> : null}
      </Popover.Dropdown>
    </Popover>
  );
}

function UndoForm({ act, onDone }: { readonly act: AccountAct; readonly onDone: () => void }): ReactNode {
  const preview = useCall("users.preview_undo", { act_id: act.act_id }, { staleMs: 0 });
  return (
    <DecisionForm
      form={`undo ${act.act_id}`}
      title={`Undo: ${codeWords(act.kind)}`}
      button="Undo"
      reasons={["Wrong user", "Wrong amount", "Not needed after all"]}
      isDangerous={false}
      preview={preview.data ?? null}
      failure={preview.error ? toFailure(preview.error) : null}
      isReady={preview.data !== undefined && !preview.error}
      onDone={onDone}
      done="Undone"
      failed="Not undone"
      send={(client, commandId, reason) =>
        client.call("users.undo", { command_id: commandId, act_id: act.act_id, reason })
      }
    />
  );
}

/** A second person decides what a colleague proposed. */
export function DecideButtons({
  act,
  isMine,
}: {
  readonly act: AccountAct;
  readonly isMine: boolean;
}): ReactNode {
  const [opened, setOpened] = useState<"approve" | "reject" | null>(null);
  const isLive = useMayAct();
  return (
    <span className={css.presets}>
      {(isMine ? (["reject"] as const) : (["approve", "reject"] as const)).map((decision) => (
        <Popover
          key={decision}
          opened={opened === decision}
          onChange={(open) => setOpened(open ? decision : null)}
          position="bottom-end"
          trapFocus
          returnFocus
        >
          <Popover.Target>
            <Button
              variant={decision === "approve" ? "filled" : "default"}
              disabled={!isLive}
              aria-haspopup="dialog"
              onClick={() => setOpened(opened === decision ? null : decision)}
            >
              {decision === "approve" ? "Approve" : isMine ? "Withdraw" : "Reject"}
            </Button>
          </Popover.Target>
          <Popover.Dropdown>
            {opened === decision ? (
              <DecideForm act={act} decision={decision} onDone={() => setOpened(null)} />
            ) : null}
          </Popover.Dropdown>
        </Popover>
      ))}
    </span>
  );
}

function DecideForm({
  act,
  decision,
  onDone,
}: {
  readonly act: AccountAct;
  readonly decision: "approve" | "reject";
  readonly onDone: () => void;
}): ReactNode {
  const preview = useCall(
    "users.preview_approval",
    { act_id: act.act_id },
    { enabled: decision === "approve", staleMs: 0 },
  );
  const isApproval = decision === "approve";
  return (
    <DecisionForm
      form={`${decision} ${act.act_id}`}
      title={`${isApproval ? "Approve" : "Reject"}: ${codeWords(act.kind)}`}
      button={isApproval ? "Approve" : "Reject"}
      reasons={isApproval ? ["Checked with the ticket"] : ["Not justified", "No longer needed"]}
      isDangerous={!isApproval}
      preview={preview.data ?? null}
      failure={preview.error ? toFailure(preview.error) : null}
      isReady={!isApproval || (preview.data !== undefined && !preview.error)}
      onDone={onDone}
      done={isApproval ? "Approved and done" : "Rejected: nothing was changed"}
      failed="Not decided"
      send={(client, commandId, reason) =>
        client.call("users.decide", { command_id: commandId, act_id: act.act_id, decision, reason })
      }
    />
  );
}
