import { Button, Popover, Textarea, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import type { AccountState } from "../../../../shared/contract/users.ts";
import { useZone } from "../../lib/clock.ts";
import { useConsole } from "../../lib/console.tsx";
import { formatInstant, viewerZone } from "../../lib/format.ts";
import { cleanText, clip } from "../../lib/text.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import css from "./users.module.css";

export type Act = "flag" | "block" | "unblock";
type Acted = OperationOutput<"users.block">;
type Detail = OperationOutput<"users.get">;

const nameOf = (account: AccountState): string =>
  clip(cleanText(account.display_name ?? "") || cleanText(account.user_id), 40);

/** Runs an act on a user: shown at once, audited by the project, taken back with one click. */
export function useActs(account: AccountState) {
  const client = useConsole();
  const queries = useQueryClient();
  const zone = useZone(account.timezone);

  const show = (patch: Partial<AccountState>): void => {
    queries.setQueryData<Detail>(["users.get", { user_id: account.user_id }], (now) =>
      now ? { ...now, account: { ...now.account, ...patch } } : now,
    );
  };
  const refresh = (): void => {
    for (const name of ["users.get", "users.search", "users.decisions"])
      void queries.invalidateQueries({ queryKey: [name] });
  };

  async function flag(commandId: string, reason: string): Promise<boolean> {
    const input = { command_id: commandId, user_id: account.user_id, reason };
    const result = await client.call("users.flag", input);
    if (!result.ok) return failed("Not flagged", result.error);
    show(
      result.value.account ?? { is_flagged: true, flag_reason: reason, flagged_at: new Date().toISOString() },
    );
    refresh();
    showDone(`Flagged ${nameOf(account)} for review${waits(result.value)}`);
    return true;
  }

  async function block(commandId: string, reason: string, until: string | null): Promise<boolean> {
    const input = { command_id: commandId, user_id: account.user_id, reason, until };
    const result = await client.call("users.block", input);
    if (!result.ok) return failed("Not blocked", result.error);
    show(result.value.account ?? { is_blocked: true, block_reason: reason, blocked_until: until });
    refresh();
    const end = until ? ` until ${formatInstant(until, zone)}` : " until someone unblocks";
    showDone(`Blocked ${nameOf(account)}${end}${waits(result.value)}`, {
      run: () => void unblock(crypto.randomUUID(), "Undo of the block just made"),
    });
    return true;
  }

  async function unblock(commandId: string, reason: string): Promise<boolean> {
    const input = { command_id: commandId, user_id: account.user_id, reason };
    const result = await client.call("users.unblock", input);
    if (!result.ok) return failed("Not unblocked", result.error);
    show(result.value.account ?? { is_blocked: false, block_reason: null, blocked_until: null });
    refresh();
    const before = account.is_blocked ? account : null;
    const end = before?.blocked_until ?? null;
    const canUndo = before !== null && (end === null || Date.parse(end) > Date.now());
    showDone(
      `Unblocked ${nameOf(account)}${waits(result.value)}`,
      canUndo
        ? {
            run: () =>
              void block(crypto.randomUUID(), before.block_reason ?? "Undo of the unblock just made", end),
          }
        : undefined,
    );
    return true;
  }

  function failed(title: string, error: Parameters<typeof showFailure>[1]): false {
    showFailure(title, error);
    return false;
  }
  return { flag, block, unblock };
}

const waits = (acted: Acted): string => (acted.intent.status === "pending" ? "; waits to be sent" : "");

const reasons: Readonly<Record<Act, readonly string[]>> = {
  flag: ["Unusual use", "Possible account sharing", "Asked by finance"],
  block: ["Spam", "Automated use", "Abuse of the service", "Payment disputed"],
  unblock: ["Resolved with the user", "Blocked by mistake", "Payment received"],
};

interface Preset {
  readonly id: string;
  readonly label: string;
  /** null: no end; undefined: asked for. */
  readonly hours: number | null | undefined;
}
const presets: readonly Preset[] = [
  { id: "1h", label: "1 hour", hours: 1 },
  { id: "24h", label: "24 hours", hours: 24 },
  { id: "7d", label: "7 days", hours: 168 },
  { id: "forever", label: "until unblocked", hours: null },
  { id: "custom", label: "other…", hours: undefined },
];

/** The end of a block as chosen; a failure in words when it cannot be. Custom times are the viewer's own. */
export function blockEnd(
  presetId: string,
  custom: string,
  nowMs: number,
): { readonly ok: true; readonly until: string | null } | { readonly ok: false; readonly says: string } {
  const hours = presets.find((preset) => preset.id === presetId)?.hours;
  if (hours === null) return { ok: true, until: null };
  if (hours !== undefined) return { ok: true, until: new Date(nowMs + hours * 3_600_000).toISOString() };
  const at = custom ? new Date(custom).getTime() : Number.NaN;
  if (Number.isNaN(at)) return { ok: false, says: "Choose a day and time." };
  if (at <= nowMs) return { ok: false, says: "This time has passed." };
  return { ok: true, until: new Date(at).toISOString() };
}

const titles: Readonly<Record<Act, string>> = { flag: "Flag for review", block: "Block", unblock: "Unblock" };

/** A button whose form opens where it stands. */
export function ActButton({
  act,
  account,
  icon,
  opened,
  onOpened,
}: {
  readonly act: Act;
  readonly account: AccountState;
  readonly icon: ReactNode;
  readonly opened: boolean;
  readonly onOpened: (opened: boolean) => void;
}): ReactNode {
  return (
    <Popover opened={opened} onChange={onOpened} position="bottom-end" trapFocus returnFocus>
      <Popover.Target>
        <Button leftSection={icon} aria-haspopup="dialog" onClick={() => onOpened(!opened)}>
          {act === "flag" ? "Flag" : titles[act]}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        {opened ? <ActForm act={act} account={account} onDone={() => onOpened(false)} /> : null}
      </Popover.Dropdown>
    </Popover>
  );
}

export function ActForm({
  act,
  account,
  onDone,
}: {
  readonly act: Act;
  readonly account: AccountState;
  readonly onDone: () => void;
}): ReactNode {
  const acts = useActs(account);
  // One id for one form: sending it again after a lost answer does it once.
  const [commandId] = useState(() => crypto.randomUUID());
  const [reason, setReason] = useState("");
  const [preset, setPreset] = useState("24h");
  const [custom, setCustom] = useState("");
  const [says, setSays] = useState<string | null>(null);
  const [endSays, setEndSays] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (): Promise<void> => {
    const words = reason.trim();
    const end = act === "block" ? blockEnd(preset, custom, Date.now()) : null;
    setSays(words.length < 3 ? "Say why, in three letters or more: it is kept in the audit." : null);
    setEndSays(end && !end.ok ? end.says : null);
    if (words.length < 3 || (end && !end.ok)) return;
    setBusy(true);
    const done =
      act === "flag"
        ? await acts.flag(commandId, words)
        : act === "unblock"
          ? await acts.unblock(commandId, words)
          : await acts.block(commandId, words, end?.ok ? end.until : null);
    setBusy(false);
    if (done) onDone();
  };
  return (
    <form
      className={css.form}
      aria-label={titles[act]}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <Textarea
        label="Reason"
        description={
          act === "block"
            ? "Kept in the audit. The user is told only that the account is blocked."
            : "Kept in the audit."
        }
        data-autofocus
        autosize
        minRows={2}
        maxRows={6}
        maxLength={1000}
        value={reason}
        error={says}
        onChange={(event) => {
          setReason(event.currentTarget.value);
          setSays(null);
        }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey) {
            event.preventDefault();
            void submit();
          }
        }}
      />
      <div className={css.presets}>
        {reasons[act].map((each) => (
          <button key={each} type="button" className={css.preset} onClick={() => setReason(each)}>
            {each}
          </button>
        ))}
      </div>
      {act === "block" ? (
        <div style={{ display: "flex", flexDirection: "column", gap: 6 }}>
          <span id="block-end">For how long</span>
          <div className={css.presets} role="group" aria-labelledby="block-end">
            {presets.map((each) => (
              <button
                key={each.id}
                type="button"
                className={css.preset}
                aria-pressed={preset === each.id}
                onClick={() => {
                  setPreset(each.id);
                  setEndSays(null);
                }}
              >
                {each.label}
              </button>
            ))}
          </div>
          {preset === "custom" ? (
            <TextInput
              type="datetime-local"
              label="Until"
              description={`Your time, ${viewerZone()}`}
              value={custom}
              error={endSays}
              onChange={(event) => setCustom(event.currentTarget.value)}
            />
          ) : null}
        </div>
      ) : null}
      <div className={css.formButtons}>
        <Button onClick={onDone}>Cancel</Button>
        <Button type="submit" variant="filled" color={act === "block" ? "danger" : "accent"} loading={busy}>
          {titles[act]}
        </Button>
      </div>
    </form>
  );
}
