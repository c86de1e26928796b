/**
 * What a person does with one difference: each act is a button beside what it is about, with its form at the button.
 */
import { Button, Popover, Textarea, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { CaseAction, FinanceCase } from "../../../../shared/contract/finance.ts";
import type { OperationInput } from "../../../../shared/contract/operations.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { sendChord, sendsByChord, useKeys } from "../../lib/keys.ts";
import { useMayAct } from "../../lib/live.ts";
import { counted } from "../../lib/text.ts";
import { useUnsent } from "../../lib/unsent.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Kbd, Note } from "../../ui/parts.tsx";
import { UserPicker } from "../../ui/user-picker.tsx";
import css from "./finance.module.css";
import { PayerSuggestions } from "./payers.tsx";
import { type Amount, AmountInput } from "../../ui/amount-input.tsx";

type ActInput = OperationInput<"finance.act">;
/** The text typed into an act's form, kept when a key or a click elsewhere closes the form. */
interface Typed {
  readonly reason: string;
  readonly userId: string | null;
  readonly tokens: Amount;
}

export const actionWords: Readonly<
  Record<CaseAction | "post", readonly [act: string, done: string, key: string]>
> = {
  investigate: ["Investigate", "Under investigation", "i"],
  assign: ["Assign", "Assigned", "m"],
  note: ["Note", "Noted", "n"],
  propose: ["Propose", "Proposed", "p"],
  approve: ["Approve", "Approved", "a"],
  carry_forward: ["Carry forward", "Carried forward", "c"],
  write_off: ["Write off", "Written off", "w"],
  reopen: ["Reopen", "Open again", "r"],
  post: ["Post", "Posted", "b"],
  undo: ["Undo", "Proposed to undo it: post that to book it", "u"],
};

export function versionsOf(cases: readonly FinanceCase[]): Record<string, number> {
  return Object.fromEntries(cases.map((each) => [each.difference_id, each.version]));
}

/** After anything that changed cases: whatever the desk shows is asked for again. */
export function useFinanceRefresh(): () => void {
  const queries = useQueryClient();
  return () =>
    void queries.invalidateQueries({
      predicate: ({ queryKey: [name] }) => typeof name === "string" && name.startsWith("finance."),
    });
}

/** Sends an act and shows its outcome. True when it was done. */
function useCaseAct(): (input: ActInput) => Promise<boolean> {
  const client = useConsole();
  const refresh = useFinanceRefresh();
  return async (input) => {
    const result = await client.call("finance.act", input);
    // Also after a refusal: somebody else may have changed what is shown.
    refresh();
    if (!result.ok) {
      showFailure(`Not done: ${actionWords[input.action][0].toLowerCase()}`, result.error);
      return false;
    }
    showDone(doneText(input.action, result.value.cases));
    return true;
  };
}

/** The outcome of an act, in a line. */
export function doneText(action: CaseAction, cases: readonly FinanceCase[]): string {
  const waits = action === "write_off" ? cases.filter((each) => each.status === "proposed").length : 0;
  const done = actionWords[action][1];
  if (cases.length === 1)
    return waits === 1 ? "Proposed to write it off: it waits for a second person" : done;
  const rest = cases.length - waits;
  return (
    `${done}: ${counted(rest, "difference")}` +
    (waits > 0 ? `; ${counted(waits, "other")} for a second person` : "")
  );
}

/** Whether a correction still lacks what only a person can decide. */
function isLacking(of: FinanceCase): { readonly user: boolean; readonly tokens: boolean } {
  const { correction } = of;
  const books = correction.books === true;
  return {
    user: books && correction.action === "grant" && typeof correction["user_id"] !== "string",
    tokens:
      books &&
      ["grant", "reverse", "adjust"].includes(correction.action ?? "") &&
      typeof correction["tokens"] !== "number",
  };
}

/** Whether what would be posted takes back what was. */
const isUndoing = (of: FinanceCase): boolean =>
  (of.status === "proposed" || of.status === "approved") && of.correction["undoes"] !== undefined;

/** The acts that a case in this status allows, the likeliest first. */
export function actsOn(of: FinanceCase): readonly (CaseAction | "post")[] {
  const books = of.correction.books === true;
  switch (of.status) {
    case "open":
      return [
        ...(books ? (["propose"] as const) : []),
        "investigate",
        "assign",
        "note",
        "carry_forward",
        "write_off",
      ];
    case "investigating":
      return [...(books ? (["propose"] as const) : []), "assign", "note", "carry_forward", "write_off"];
    case "proposed":
      if (isUndoing(of))
        return [
          ...(of.needs_approver ? (["approve", "post"] as const) : (["post", "approve"] as const)),
          "reopen",
          "assign",
          "note",
        ];
      return of.resolution === "write_off"
        ? ["approve", "reopen", "assign", "note", "carry_forward"]
        : [
            ...(of.needs_approver ? (["approve", "post"] as const) : (["post", "approve"] as const)),
            "propose",
            "reopen",
            "assign",
            "note",
            "carry_forward",
            "write_off",
          ];
    case "approved":
      return ["post", "reopen", "assign", "note"];
    case "carried_forward":
    case "written_off":
      return ["reopen", "assign", "note"];
    case "posted":
    case "verified":
      return ["note", "assign", ...(of.posted_by ? (["undo"] as const) : [])];
  }
}

export function CaseActs({
  of,
  operator,
  assignees,
  onPost,
}: {
  readonly of: FinanceCase;
  readonly operator: string;
  readonly assignees: readonly string[];
  readonly onPost: () => void;
}): ReactNode {
  const act = useCaseAct();
  const isLive = useMayAct();
  const [opened, setOpened] = useState<CaseAction | null>(null);
  const acts = actsOn(of);
  const run = (action: CaseAction | "post"): boolean => {
    if (!isLive || !acts.includes(action)) return false;
    if (action === "post") onPost();
    else if (action === "investigate")
      void act({
        command_id: crypto.randomUUID(),
        difference_ids: [of.difference_id],
        versions: versionsOf([of]),
        action,
        reason: null,
      });
    else setOpened(action);
    return true;
  };
  useKeys(
    Object.fromEntries(
      (Object.keys(actionWords) as (keyof typeof actionWords)[]).map((action) => [
        actionWords[action][2],
        () => run(action),
      ]),
    ),
  );
  // The form first, then the detail behind it.
  useKeys({ Escape: () => setOpened(null) }, opened !== null);
  return (
    <div className={css.buttons} role="group" aria-label="What to do">
      {acts.map((action, index) => {
        const [name, , key] = actionWords[action];
        const button = (
          <Button
            variant={index === 0 && action !== "note" ? "filled" : "default"}
            disabled={!isLive}
            title={`${name} (${key})`}
            aria-haspopup={action === "investigate" || action === "post" ? undefined : "dialog"}
            onClick={() => (opened === action ? setOpened(null) : void run(action))}
          >
            {name}
            {action === "post" || isFormed(action) ? "…" : ""}
          </Button>
        );
        if (action === "investigate" || action === "post") return <span key={action}>{button}</span>;
        return (
          <Popover
            key={action}
            opened={opened === action}
            onChange={(open) => setOpened(open ? action : null)}
            position="bottom-start"
            trapFocus
            returnFocus
          >
            <Popover.Target>{button}</Popover.Target>
            <Popover.Dropdown>
              {opened === action ? (
                <ActForm
                  action={action}
                  of={of}
                  operator={operator}
                  assignees={assignees}
                  onDone={() => setOpened(null)}
                />
              ) : null}
            </Popover.Dropdown>
          </Popover>
        );
      })}
    </div>
  );
}

const isFormed = (action: CaseAction): boolean => action !== "investigate" && action !== "approve";

const needsReason: ReadonlySet<CaseAction> = new Set([
  "note",
  "carry_forward",
  "write_off",
  "reopen",
  "undo",
]);
const reasonNotes: Partial<Record<CaseAction, string>> = {
  carry_forward: "Kept with the case. It comes back as a late item of the next period.",
  write_off: "Kept with the case and in the audit.",
  undo: "Proposes the entry that takes it back; posting that has the limits of any correction.",
};

function ActForm({
  action,
  of,
  operator,
  assignees,
  onDone,
}: {
  readonly action: CaseAction;
  readonly of: FinanceCase;
  readonly operator: string;
  readonly assignees: readonly string[];
  readonly onDone: () => void;
}): ReactNode {
  const act = useCaseAct();
  // One id for one form: sent again after a lost answer it is done once.
  const [commandId] = useState(() => crypto.randomUUID());
  const [{ reason, userId, tokens }, setTyped, forget] = useUnsent<Typed>(
    `case:${action}:${of.difference_id}`,
    () => ({ reason: "", userId: null, tokens: null }),
  );
  const type = (more: Partial<Typed>): void => setTyped((before) => ({ ...before, ...more }));
  const [assignee, setAssignee] = useState(of.assigned_to ?? operator);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [name] = actionWords[action];
  const lacks = isLacking(of);
  const movesMoney = action === "write_off";

  const finish = (): void => {
    forget();
    onDone();
  };
  const submit = async (assignTo: string = assignee): Promise<void> => {
    if (busy) return;
    const words = reason.trim();
    if (needsReason.has(action) && words.length < 3) return setError("Say why, in three letters or more.");
    if (action === "propose" && ((lacks.user && !userId) || (lacks.tokens && !tokens)))
      return setError("Fill in what the report could not find out.");
    setBusy(true);
    const done = await act({
      command_id: commandId,
      difference_ids: [of.difference_id],
      versions: versionsOf([of]),
      action,
      reason: words || null,
      ...(action === "assign" ? { assigned_to: assignTo || null } : {}),
      ...(action === "propose" && (userId || tokens)
        ? { correction: { ...(userId ? { user_id: userId } : {}), ...(tokens ? { tokens } : {}) } }
        : {}),
    });
    setBusy(false);
    if (done) finish();
  };
  return (
    <form
      className={css.form}
      aria-label={name}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
      onKeyDown={movesMoney ? sendsByChord(() => void submit()) : undefined}
    >
      <ActQuestions
        action={action}
        of={of}
        operator={operator}
        userId={userId}
        setUserId={(next) => type({ userId: next })}
        tokens={tokens}
        setTokens={(next) => type({ tokens: next })}
      />
      {action === "assign" ? (
        <Assignee
          of={of}
          known={[operator, ...assignees]}
          value={assignee}
          onChange={setAssignee}
          onChoose={(name) => void submit(name)}
        />
      ) : (
        <Textarea
          label={needsReason.has(action) ? (action === "note" ? "Note" : "Reason") : "Note, if there is one"}
          description={reasonNotes[action]}
          data-autofocus
          autosize
          spellCheck
          minRows={2}
          maxRows={6}
          maxLength={2000}
          value={reason}
          onChange={(event) => {
            type({ reason: event.currentTarget.value });
            setError(null);
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !movesMoney) {
              event.preventDefault();
              void submit();
            }
          }}
        />
      )}
      {error ? (
        <span className={css.bad} role="alert">
          {error}
        </span>
      ) : null}
      <div className={css.formButtons}>
        <Button onClick={finish}>Cancel</Button>
        <Button type="submit" variant="filled" loading={busy}>
          {action === "write_off" && of.needs_approver ? "Propose to write off" : name}
        </Button>
      </div>
      <span className={css.quiet}>
        <Kbd>{movesMoney ? sendChord() : "Enter"}</Kbd> sends, <Kbd>Esc</Kbd> closes
      </span>
    </form>
  );
}

/** The fields and notes of an action beside its reason. */
function ActQuestions({
  action,
  of,
  operator,
  userId,
  setUserId,
  tokens,
  setTokens,
}: {
  readonly action: CaseAction;
  readonly of: FinanceCase;
  readonly operator: string;
  readonly userId: string | null;
  readonly setUserId: (userId: string | null) => void;
  readonly tokens: Amount;
  readonly setTokens: (tokens: Amount) => void;
}): ReactNode {
  const lacks = isLacking(of);
  return (
    <>
      {action === "propose" ? (
        <>
          {lacks.user ? (
            <div className={css.field}>
              <span>The user who paid</span>
              <PayerSuggestions differenceId={of.difference_id} taken={userId} onTake={setUserId} />
              <UserPicker userId={userId} onChange={setUserId} isForm />
            </div>
          ) : null}
          {lacks.tokens ? (
            <AmountInput
              label="Tokens"
              description="More (+) or less (−) for the user"
              min={-100_000_000}
              max={100_000_000}
              value={tokens}
              onChange={setTokens}
            />
          ) : null}
          {of.needs_approver ? (
            <Note tone="amber">
              It is above the limit: a second person must approve it before it is posted.
            </Note>
          ) : null}
        </>
      ) : null}
      {action === "approve" ? (
        <span>
          {of.resolution === "write_off"
            ? `${of.proposed_by ?? "Somebody"} proposed to write this off. Approving writes it off.`
            : `${of.proposed_by ?? "Somebody"} proposed it. You approve as ${operator}.`}
        </span>
      ) : null}
      {action === "write_off" && of.needs_approver ? (
        <Note tone="amber">
          It is above the limit: it is only proposed, until a second person approves it.
        </Note>
      ) : null}
    </>
  );
}

function Assignee({
  of,
  known,
  value,
  onChange,
  onChoose,
}: {
  readonly of: FinanceCase;
  readonly known: readonly string[];
  readonly value: string;
  readonly onChange: (name: string) => void;
  readonly onChoose: (name: string) => void;
}): ReactNode {
  return (
    <>
      <TextInput
        label="To"
        data-autofocus
        maxLength={255}
        value={value}
        onChange={(event) => onChange(event.currentTarget.value)}
      />
      <div className={css.presets}>
        {[...new Set(known)].slice(0, 8).map((each) => (
          <button key={each} type="button" className={css.preset} onClick={() => onChoose(each)}>
            <bdi>{each}</bdi>
          </button>
        ))}
        {of.assigned_to ? (
          <button type="button" className={css.preset} onClick={() => onChoose("")}>
            nobody
          </button>
        ) : null}
      </div>
    </>
  );
}

/** The name under which this console acts. */
export function useOperator(): string {
  return useCall("settings.get", {}, { staleMs: 60_000 }).data?.operator ?? "";
}
