/** Forms of corrections: what is wanted, exactly what it will do, and why. */
import { Button, NumberInput, Popover, Select, Textarea, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import {
  type AccountAct,
  type Correction,
  type CorrectionKind,
  correction as correctionSchema,
  correctionWords,
  type Effects,
  type Preview,
  type Snapshot,
} from "../../../shared/contract/corrections.ts";
import type { Failure } from "../../../shared/contract/basics.ts";
import type { Balance } from "../../../shared/contract/users.ts";
import { useZone } from "../lib/clock.ts";
import { toFailure, useCall, useConsole } from "../lib/console.tsx";
import { formatChange, formatInstant, formatTokens, viewerZone } from "../lib/format.ts";
import { useIsLive, useLive } from "../lib/live.ts";
import { capitalise, cleanText, clip, codeWords } from "../lib/text.ts";
import { AmountChips } from "./amount-chips.tsx";
import { showDone, showFailure } from "./notices.tsx";
import { Note } from "./parts.tsx";
import { PresetReasons } from "./preset-reasons.tsx";
import { FailureLine } from "./states.tsx";
import css from "./correction.module.css";

/** A button whose form opens where it stands. */
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
  /** What is given by the place: the call, or how its hold ends. */
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
  const isLive = useIsLive();
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
          disabled={!isLive}
          title={isLive ? (key ? `${title} (${key})` : title) : "Needs a connection to the project"}
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

const lifetimes: readonly { readonly id: string; readonly label: string; readonly days: number | null }[] = [
  { id: "never", label: "never", days: null },
  { id: "7d", label: "in 7 days", days: 7 },
  { id: "30d", label: "in 30 days", days: 30 },
  { id: "90d", label: "in 90 days", days: 90 },
];

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
  const [fields, setFields] = useState<Readonly<Record<string, unknown>>>({
    kind,
    ...(kind === "give_tokens" ? { lot_kind: "promotional", expires_at: null } : {}),
    ...(kind === "change_plan" ? { when: "now" } : {}),
    ...(kind === "raise_limit" ? { daily_limit: null, monthly_limit: null, until: inDays(1) } : {}),
    ...(kind === "end_hold" ? { action: "release", input_tokens: null, output_tokens: null } : {}),
    ...given,
  });
  const set = (more: Readonly<Record<string, unknown>>): void =>
    setFields((before) => ({ ...before, ...more }));
  const isCounted = typeof fields["input_tokens"] === "number" && typeof fields["output_tokens"] === "number";
  const wanted = correctionSchema.safeParse(
    fields["action"] === "settle" && !isReported && !isCounted ? null : fields,
  );
  const [settled] = useDebouncedValue(wanted.data, 250);
  const isSettled = JSON.stringify(settled) === JSON.stringify(wanted.data);
  const preview = useCall(
    "users.preview",
    { user_id: userId, correction: settled as Correction },
    { enabled: settled !== undefined, staleMs: 0 },
  );
  const isPreviewed = wanted.success && isSettled && preview.data !== undefined && !preview.error;
  return (
    <DecisionForm
      title={title(kind, fields)}
      button={words.title}
      reasons={words.reasons}
      isDangerous={words.isDangerous ?? false}
      preview={wanted.success && isSettled ? (preview.data ?? null) : null}
      failure={wanted.success && isSettled && preview.error ? toFailure(preview.error) : null}
      isReady={isPreviewed}
      onDone={onDone}
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

const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();

/** "Give tokens", "Release the hold": what the form does, for what was chosen. */
function title(kind: CorrectionKind, fields: Readonly<Record<string, unknown>>): string {
  if (kind !== "end_hold") return correctionWords[kind].title;
  return fields["action"] === "settle" ? "Settle this call" : "Release this hold";
}

/** What a kind of correction asks for. */
export function CorrectionFields({
  kind,
  fields,
  set,
  plan,
  given,
}: {
  readonly kind: CorrectionKind;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly set: (more: Readonly<Record<string, unknown>>) => void;
  readonly plan: string;
  readonly given: Readonly<Record<string, unknown>>;
}): ReactNode {
  const [lifetime, setLifetime] = useState("never");
  const plans = useLive((state) => state.connection?.project?.plans) ?? [];
  const amount = (field: string, label: string, autoFocus = false): ReactNode => (
    <NumberInput
      label={label}
      thousandSeparator=","
      allowDecimal={false}
      allowNegative={false}
      min={0}
      data-autofocus={autoFocus || undefined}
      value={typeof fields[field] === "number" ? fields[field] : ""}
      onChange={(value) => set({ [field]: typeof value === "number" ? value : null })}
    />
  );
  const choices = (
    field: string,
    label: string,
    values: readonly (readonly [value: string, label: string])[],
  ): ReactNode => (
    <div className={css.field}>
      <span id={`choose-${field}`}>{label}</span>
      <div className={css.presets} role="group" aria-labelledby={`choose-${field}`}>
        {values.map(([value, name]) => (
          <button
            key={value}
            type="button"
            className={css.preset}
            aria-pressed={fields[field] === value}
            onClick={() => set({ [field]: value })}
          >
            {name}
          </button>
        ))}
      </div>
    </div>
  );
  switch (kind) {
    case "give_tokens":
      return (
        <>
          {amount("tokens", "Tokens", true)}
          <AmountChips
            tokens={typeof fields["tokens"] === "number" ? fields["tokens"] : null}
            onPick={(tokens) => set({ tokens })}
          />
          {choices("lot_kind", "Kind", [
            ["promotional", "promotional"],
            ["purchased", "purchased"],
            ["subscription", "subscription"],
          ])}
          <div className={css.field}>
            <span id="choose-expiry">They expire</span>
            <div className={css.presets} role="group" aria-labelledby="choose-expiry">
              {lifetimes.map(({ id, label, days }) => (
                <button
                  key={id}
                  type="button"
                  className={css.preset}
                  aria-pressed={lifetime === id}
                  onClick={() => {
                    setLifetime(id);
                    set({
                      expires_at:
                        days === null ? null : new Date(Date.now() + days * 86_400_000).toISOString(),
                    });
                  }}
                >
                  {label}
                </button>
              ))}
              <button
                type="button"
                className={css.preset}
                aria-pressed={lifetime === "custom"}
                onClick={() => setLifetime("custom")}
              >
                other…
              </button>
            </div>
            {lifetime === "custom" ? (
              <TextInput
                type="datetime-local"
                label="Until"
                description={`Your time, ${viewerZone()}`}
                onChange={(event) => {
                  const at = new Date(event.currentTarget.value);
                  set({ expires_at: Number.isNaN(at.getTime()) ? null : at.toISOString() });
                }}
              />
            ) : null}
          </div>
        </>
      );
    case "take_tokens":
      return amount("tokens", "Tokens", true);
    case "refund_call":
      return (
        <p className={css.quiet}>
          What the call was charged goes back to the lots it came from. The call itself, its cost and what it
          counts towards limits stay as they are.
        </p>
      );
    case "end_hold":
      return (
        <>
          {given["action"] === undefined
            ? choices("action", "How it ends", [
                ["release", "give the tokens back"],
                ["settle", "charge what was used"],
              ])
            : null}
          {fields["action"] === "settle" ? (
            <div className={css.pair}>
              {amount("input_tokens", "Input tokens", true)}
              {amount("output_tokens", "Output tokens")}
            </div>
          ) : null}
        </>
      );
    case "raise_limit":
      return (
        <>
          <div className={css.pair}>
            {amount("daily_limit", "Daily limit", true)}
            {amount("monthly_limit", "Monthly limit")}
          </div>
          <div className={css.field}>
            <span id="choose-until">It is the plan’s again, by itself</span>
            <div className={css.presets} role="group" aria-labelledby="choose-until">
              {([1, 3, 7, 30] as const).map((days) => (
                <button
                  key={days}
                  type="button"
                  className={css.preset}
                  aria-pressed={lifetime === String(days) || (lifetime === "never" && days === 1)}
                  onClick={() => {
                    setLifetime(String(days));
                    set({ until: inDays(days) });
                  }}
                >
                  {days === 1 ? "in a day" : `in ${days} days`}
                </button>
              ))}
            </div>
          </div>
          <TextInput
            type="datetime-local"
            label="Or at"
            description={`Your time, ${viewerZone()}`}
            onChange={(event) => {
              const at = new Date(event.currentTarget.value);
              if (Number.isNaN(at.getTime())) return;
              setLifetime("custom");
              set({ until: at.toISOString() });
            }}
          />
        </>
      );
    case "change_plan":
      return (
        <>
          <Select
            label="Plan"
            data-autofocus
            searchable
            comboboxProps={{ withinPortal: false }}
            data={plans
              .filter(({ plan_id: id }) => id !== plan)
              .map((each) => ({
                value: each.plan_id,
                label: clip(cleanText(each.name || each.plan_id), 60),
              }))}
            value={typeof fields["plan_id"] === "string" ? fields["plan_id"] : null}
            onChange={(value) => set({ plan_id: value })}
          />
          {choices("when", "When", [
            ["now", "now"],
            ["next_period", "when their next month begins"],
          ])}
        </>
      );
  }
}

/** Takes an act back, after showing what that does now. */
export function UndoButton({ act }: { readonly act: AccountAct }): ReactNode {
  const [opened, setOpened] = useState(false);
  const isLive = useIsLive();
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
  const isLive = useIsLive();
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

type Sent = ReturnType<ReturnType<typeof useConsole>["call"]>;

/** A form with a preview, a reason and one button; sends once, whatever happens to the answer. */
function DecisionForm({
  title: heading,
  button,
  reasons,
  isDangerous,
  preview,
  failure,
  isReady,
  done,
  failed,
  send,
  onDone,
  children,
}: {
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
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const [reason, setReason] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  // The account as it was when the person first saw what the act does.
  const [seen, setSeen] = useState<Snapshot | null>(null);
  if (seen === null && preview !== null) setSeen(preview.effects.before);
  const [isStale, setStale] = useState(false);
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
      if (result.error.code === "in_doubt") onDone();
      else setCommandId(crypto.randomUUID());
      if (result.error.code === "version_conflict") setStale(true);
      showFailure(failed, result.error);
      return;
    }
    showDone(result.value.act.status === "proposed" ? "Proposed: a second person must approve it" : done);
    onDone();
  };
  return (
    <form
      className={css.correction}
      aria-label={heading}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <h2>{heading}</h2>
      {children}
      {failure ? <FailureLine failure={failure} /> : null}
      {isStale && seen && preview ? <ChangedSince before={seen} after={preview.effects.before} /> : null}
      {preview ? <EffectsView effects={preview.effects} /> : null}
      {preview?.why ? (
        <Note tone="amber">{preview.why}. You propose it; nothing moves until then.</Note>
      ) : null}
      <Textarea
        label="Reason"
        description="Kept in the audit and in the ledger."
        autosize
        minRows={2}
        maxRows={6}
        maxLength={1000}
        data-autofocus={children ? undefined : true}
        value={reason}
        error={error}
        onChange={(event) => {
          setReason(event.currentTarget.value);
          setError(null);
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey) {
            event.preventDefault();
            void submit();
          }
        }}
      />
      <PresetReasons
        reasons={reasons}
        onPick={(each) => {
          setReason(each);
          setError(null);
        }}
      />
      <div className={css.formButtons}>
        <Button onClick={onDone}>Cancel</Button>
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

/** What somebody else changed while the form was open. */
function ChangedSince({ before, after }: { readonly before: Snapshot; readonly after: Snapshot }): ReactNode {
  const lines = effectLines({ before, after });
  return (
    <Note tone="amber" role="alert">
      {lines.length === 0
        ? "Somebody changed this user since you looked; balance, plan, limits and blocks are the same."
        : `Changed since you looked: ${lines.map(([name, was, is]) => `${name} ${was} → ${is}`).join("; ")}.`}{" "}
      What you see now is what will happen.
    </Note>
  );
}

const balanceNames: readonly (readonly [key: keyof Balance, name: string])[] = [
  ["available", "Free"],
  ["reserved", "Held"],
  ["subscription", "Subscription"],
  ["purchased", "Purchased"],
  ["promotional", "Promotional"],
  ["debt", "Debt"],
];

/** What changes, line by line: before, after, and by how much. */
export function effectLines(
  effects: Pick<Effects, "before" | "after">,
): readonly (readonly [string, string, string, string])[] {
  const { before, after } = effects;
  const lines: [string, string, string, string][] = [];
  if (before.plan_id !== after.plan_id)
    lines.push(["Plan", cleanText(before.plan_name), cleanText(after.plan_name), ""]);
  if (before.next_plan?.plan_id !== after.next_plan?.plan_id)
    lines.push([
      "Plan, next month",
      cleanText(before.next_plan?.name ?? "stays"),
      cleanText(after.next_plan?.name ?? "stays"),
      "",
    ]);
  for (const [key, name] of [
    ["is_blocked", "Blocked"],
    ["is_flagged", "Flagged"],
  ] as const)
    if ((before[key] ?? false) !== (after[key] ?? false))
      lines.push([name, before[key] ? "yes" : "no", after[key] ? "yes" : "no", ""]);
  for (const [key, name] of balanceNames) {
    const [was, is] = [before.balance[key] as number, after.balance[key] as number];
    if (was !== is) lines.push([name, formatTokens(was), formatTokens(is), formatChange(is - was)]);
  }
  for (const [key, name] of [
    ["daily", "Daily limit"],
    ["monthly", "Monthly limit"],
  ] as const) {
    const [was, is] = [before.limits[key].limit, after.limits[key].limit];
    if (was !== is)
      lines.push([
        name,
        was === null ? "none" : formatTokens(was),
        is === null ? "none" : formatTokens(is),
        "",
      ]);
  }
  return lines;
}

export function EffectsView({ effects }: { readonly effects: Effects }): ReactNode {
  const lines = effectLines(effects);
  if (lines.length === 0)
    return <p className={css.quiet}>The balance, the plan and the limits stay as they are.</p>;
  return (
    <table className={css.effects} aria-label="What changes">
      <thead>
        <tr>
          <th>What changes</th>
          <th>now</th>
          <th>then</th>
          <th />
        </tr>
      </thead>
      <tbody>
        {lines.map(([name, was, is, change]) => (
          <tr key={name}>
            <th>{name}</th>
            <td>{was}</td>
            <td>
              <b>{is}</b>
            </td>
            <td className={css.quiet}>{change}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** An act in a line: "Give 1,000 promotional tokens until 1 Mar 2027". */
export function useActSentence(): (act: Pick<AccountAct, "kind" | "fields" | "undoes">) => string {
  const zone = useZone(null);
  return (act) => {
    const { fields } = act;
    const count = typeof fields["tokens"] === "number" ? `${formatTokens(fields["tokens"])} ` : "";
    const text = (key: string): string => {
      const field = fields[key];
      return typeof field === "string" ? clip(cleanText(field), 60) : "";
    };
    const words: Readonly<Record<string, () => string>> = {
      give_tokens: () =>
        `give ${count}${text("lot_kind") || "promotional"} tokens` +
        (fields["expires_at"] ? ` until ${formatInstant(text("expires_at"), zone)}` : ""),
      take_tokens: () => `take ${count}tokens`,
      refund_call: () => `refund the call ${text("request_id")}`,
      end_hold: () => `${text("action")} the hold of ${text("request_id")}`,
      change_plan: () =>
        `move to the plan ${text("plan_id")}` +
        (fields["when"] === "next_period" ? " when their next month begins" : ""),
      raise_limit: () =>
        `raise ${(["daily_limit", "monthly_limit"] as const)
          .filter((key) => typeof fields[key] === "number")
          .map(
            (key) =>
              `the ${key === "daily_limit" ? "daily" : "monthly"} limit to ${formatTokens(fields[key] as number)}`,
          )
          .join(" and ")} until ${formatInstant(text("until"), zone)}`,
      note: () => "note",
    };
    const said = words[act.kind]?.() ?? codeWords(act.kind);
    return act.undoes === null ? capitalise(said) : `Undo: ${said}`;
  };
}
