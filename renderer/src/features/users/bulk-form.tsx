/** One act on many users: what it does, what it costs, and why, before it starts. */
import { Button, Select, Textarea } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { type ReactNode, useState } from "react";
import {
  type BulkKind,
  bulkGroups,
  bulkWords,
  manyAct,
  type ManyCorrection,
  type ManyPreview,
} from "../../../../shared/contract/bulk.ts";
import { toFailure, useCall, useConsole } from "../../lib/console.tsx";
import { sendsByChord } from "../../lib/keys.ts";
import { navigate } from "../../lib/router.ts";
import { useUnsent } from "../../lib/unsent.ts";
import { askedOf, CorrectionFields, inDays } from "../../ui/correction-fields.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { PresetReasons } from "../../ui/preset-reasons.tsx";
import { ProductionLine } from "../../ui/production-ask.tsx";
import { FailureLine, Skeleton } from "../../ui/states.tsx";
import { BulkPlan, people } from "./bulk-plan.tsx";
import css from "./bulk.module.css";

type Fields = Readonly<Record<string, unknown>>;
interface Typed {
  readonly kind: BulkKind;
  readonly fields: Fields;
  readonly reason: string;
}

/** The values of the fields before anything was typed. */
const firstFields = (kind: BulkKind): Fields => {
  switch (kind) {
    case "give_tokens":
      return { lot_kind: "promotional", expires_at: null };
    case "change_plan":
      return { when: "now" };
    case "raise_limit":
      return { daily_limit: null, monthly_limit: null, until: inDays(1) };
    case "block_user":
      return { until: null };
    default:
      return {};
  }
};

/** The act as it was typed, once it is complete, with its effects. */
function useBulkPlan(ids: readonly string[], kind: BulkKind, fields: Fields) {
  const wanted = manyAct.safeParse(askedOf({ kind, ...fields }));
  const [settled] = useDebouncedValue(wanted.data, 300);
  const isSettled = wanted.success && JSON.stringify(settled) === JSON.stringify(wanted.data);
  const preview = useCall(
    "bulk.preview",
    { user_ids: [...ids], correction: settled as ManyCorrection },
    { enabled: settled !== undefined, staleMs: 0 },
  );
  return {
    wanted: wanted.data,
    plan: isSettled && !preview.error ? preview.data : undefined,
    failure: isSettled && preview.error ? toFailure(preview.error) : null,
    isLoading: isSettled && preview.isLoading,
    again: () => void preview.refetch(),
  };
}

/** Starts it once, whatever becomes of the answer. */
function useStart(ids: readonly string[], again: () => void, onClose: () => void) {
  const client = useConsole();
  const [busy, setBusy] = useState(false);
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const start = async (correction: ManyCorrection, plan: ManyPreview, reason: string): Promise<void> => {
    setBusy(true);
    const started = await client.call("bulk.start", {
      command_id: commandId,
      user_ids: [...ids],
      correction,
      reason,
      expected_changes: plan.changes,
      expected_tokens: plan.tokens,
    });
    setBusy(false);
    if (!started.ok) {
      showFailure("Not started", started.error);
      if (started.error.code === "in_doubt") return onClose();
      setCommandId(crypto.randomUUID());
      return again();
    }
    onClose();
    navigate(`/audit/many/${started.value.bulk_id}`);
  };
  return { start, busy };
}

export function BulkForm({
  ids,
  onClose,
}: {
  readonly ids: readonly string[];
  readonly onClose: () => void;
}): ReactNode {
  const [{ kind, fields, reason }, setTyped, forget] = useUnsent<Typed>("bulk", () => ({
    kind: "give_tokens",
    fields: firstFields("give_tokens"),
    reason: "",
  }));
  const [error, setError] = useState<string | null>(null);
  const { wanted, plan, failure, isLoading, again } = useBulkPlan(ids, kind, fields);
  const finish = (): void => {
    forget();
    onClose();
  };
  const { start, busy } = useStart(ids, again, finish);
  const isReady = wanted !== undefined && plan !== undefined && plan.changes > 0;
  const words = bulkWords[kind];
  const write = (text: string): void => {
    setTyped((before) => ({ ...before, reason: text }));
    setError(null);
  };
  const submit = (): void => {
    if (busy || !isReady) return;
    if (reason.trim().length < 3)
      return setError(`Give a ${kind === "note" ? "note" : "reason"} of at least 3 characters.`);
    void start(wanted, plan, reason.trim());
  };
  return (
    <form
      className={css.dialog}
      aria-label="Correct many users"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
      onKeyDown={sendsByChord(submit)}
    >
      <Select
        label="What"
        allowDeselect={false}
        comboboxProps={{ withinPortal: false }}
        maxDropdownHeight={360}
        data={bulkGroups.map(({ name, kinds }) => ({
          group: name,
          items: kinds.map((value) => ({ value, label: bulkWords[value].title })),
        }))}
        value={kind}
        onChange={(value) => {
          const next = value as BulkKind | null;
          if (next !== null) setTyped((before) => ({ ...before, kind: next, fields: firstFields(next) }));
        }}
      />
      <CorrectionFields
        key={kind}
        kind={kind}
        fields={fields}
        set={(more) => setTyped((before) => ({ ...before, fields: { ...before.fields, ...more } }))}
        plan=""
        given={{}}
      />
      {failure ? <FailureLine failure={failure} /> : null}
      {isLoading ? <Skeleton lines={4} /> : null}
      {plan && wanted ? <BulkPlan kind={kind} given={wanted} plan={plan} /> : null}
      <Textarea
        spellCheck
        label={kind === "note" ? "Note" : "Reason"}
        description={
          kind === "give_tokens" || kind === "take_tokens"
            ? "Kept in the audit and in the ledger of each of them."
            : "Kept in the audit of each of them."
        }
        autosize
        minRows={2}
        maxRows={6}
        maxLength={1000}
        value={reason}
        error={error}
        onChange={(event) => write(event.currentTarget.value)}
      />
      <PresetReasons
        reasons={[
          ...(kind === "give_tokens" || kind === "raise_limit" ? ["Goodwill after an outage"] : []),
          ...words.reasons.slice(0, words.isDangerous ? 3 : 2),
        ]}
        onPick={write}
      />
      <ProductionLine />
      <div className={css.formButtons}>
        <Button onClick={finish}>Cancel</Button>
        <Button
          type="submit"
          variant="filled"
          color={words.isDangerous ? "danger" : "accent"}
          loading={busy}
          disabled={!isReady}
        >
          {plan?.why ? "Propose for" : `${words.title}:`} {people(plan?.changes ?? ids.length)}
        </Button>
      </div>
    </form>
  );
}
