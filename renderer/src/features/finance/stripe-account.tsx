import { Button, Checkbox, PasswordInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { StripeConnection, StripeKeyCheck } from "../../../../shared/contract/finance-runs.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { useAnswerTo, useCall, useConsole } from "../../lib/console.tsx";
import { cleanText, clip } from "../../lib/text.ts";
import { RemoveButton } from "../../ui/ask.tsx";
import { CheckIcon, CloseIcon, LinkIcon, PlugIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { CopyButton, copyText, Id, Note, Tag, Time, Tokens } from "../../ui/parts.tsx";
import { failureText, QueryView, Skeleton } from "../../ui/states.tsx";
import css from "./new-run.module.css";

type StripeSource = OperationOutput<"finance.stripe">;

const keyWords: Readonly<Record<StripeConnection["key_storage"], string>> = {
  keychain: "Key in this machine's keychain",
  session: "Key kept until the console ends (there is no keychain here)",
  missing: "Key missing",
};

/** The Stripe account that this project is reconciled with: connect, use, see what is kept, let go. */
export function StripeAccount({
  isUsed,
  onUse,
}: {
  readonly isUsed: boolean;
  readonly onUse: (isUsed: boolean) => void;
}): ReactNode {
  const query = useCall("finance.stripe", {});
  const [isConnecting, setConnecting] = useState(false);
  return (
    <section
      className={`${css.card} ${isConnecting ? css.wide : ""}`}
      aria-label="Stripe's API"
      data-used={isUsed || undefined}
    >
      <QueryView query={query} skeleton={<Skeleton lines={4} />}>
        {(source) =>
          isConnecting ? (
            <ConnectForm
              source={source}
              onDone={(isConnected) => {
                setConnecting(false);
                if (isConnected) onUse(true);
              }}
            />
          ) : source.connection ? (
            <Connected
              connection={source.connection}
              apiVersion={source.api_version}
              isUsed={isUsed}
              onUse={onUse}
              onConnect={() => setConnecting(true)}
            />
          ) : (
            <>
              <div className={css.cardHead}>
                <h2>Read Stripe's API</h2>
              </div>
              <span className={css.quiet}>
                With a restricted key that can only read. The first time everything of the period is read,
                then only what is new. No export to download, nothing to forget.
              </span>
              <div className={css.row}>
                <Button leftSection={<PlugIcon size={14} />} onClick={() => setConnecting(true)}>
                  Connect Stripe
                </Button>
              </div>
            </>
          )
        }
      </QueryView>
    </section>
  );
}

function Connected({
  connection,
  apiVersion,
  isUsed,
  onUse,
  onConnect,
}: {
  readonly connection: StripeConnection;
  readonly apiVersion: string;
  readonly isUsed: boolean;
  readonly onUse: (isUsed: boolean) => void;
  readonly onConnect: () => void;
}): ReactNode {
  const isMissing = connection.key_storage === "missing";
  return (
    <>
      <div className={css.cardHead}>
        <h2>{accountName(connection)}</h2>
        <ModeTag mode={connection.mode} />
        <Id value={connection.account_id} head={12} tail={4} />
      </div>
      <span className={css.quiet}>
        {keyWords[connection.key_storage]}. Connected <Time at={connection.connected_at} />.{" "}
        {connection.data_through ? (
          <>
            <Tokens value={connection.objects} /> objects are kept here, complete through{" "}
            <Time at={connection.data_through} form="full" />.
          </>
        ) : connection.objects > 0 ? (
          <>
            A first reading was interrupted after <Tokens value={connection.objects} /> objects; it goes on
            from there.
          </>
        ) : (
          "Nothing was read yet."
        )}
      </span>
      {connection.mode === "test" ? <TestModeNote /> : null}
      {isMissing ? (
        <Note tone="amber">
          The key was kept for one session only, or the keychain has lost it. Connect again to read what is
          new; what was read is kept.
        </Note>
      ) : null}
      <details className={css.more}>
        <summary>What is read, and what is read again</summary>
        <p className={css.quiet}>
          Balance transactions, charges, refunds, disputes, checkout sessions and invoices, from three days
          before the period until now, in API version {cleanText(apiVersion)}. A balance transaction never
          changes, and each movement of money makes a new one. So only three things are read again: what
          Stripe had not finished with, what a new balance transaction speaks of, and the charge behind a new
          refund or dispute. Metadata edited later is not noticed: for that, remove the account with what was
          read, and connect again. Cards, addresses and names are not kept.
        </p>
      </details>
      <div className={css.row}>
        {isMissing ? (
          <Button leftSection={<PlugIcon size={14} />} onClick={onConnect}>
            Connect again
          </Button>
        ) : (
          <Checkbox
            label="Use this account"
            checked={isUsed}
            onChange={(event) => onUse(event.currentTarget.checked)}
          />
        )}
        <span style={{ flex: 1 }} />
        {isMissing ? null : (
          <Button variant="subtle" onClick={onConnect}>
            Other key
          </Button>
        )}
        <Remove connection={connection} onRemoved={() => onUse(false)} />
      </div>
    </>
  );
}

function Remove({
  connection,
  onRemoved,
}: {
  readonly connection: StripeConnection;
  readonly onRemoved: () => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [isDataForgotten, setDataForgotten] = useState(false);
  const remove = async (): Promise<void> => {
    const result = await client.call("finance.stripe_disconnect", { forget_data: isDataForgotten });
    if (!result.ok) return showFailure("Not removed", result.error);
    showDone(`Removed the key of ${accountName(connection)}${isDataForgotten ? " and what was read" : ""}`);
    onRemoved();
    void queries.invalidateQueries({ queryKey: ["finance.stripe"] });
  };
  return (
    <RemoveButton
      label="Remove key"
      name={`Remove the key of ${accountName(connection)}`}
      variant="subtle"
      onRemove={() => void remove()}
    >
      <span>
        Forget this key on this machine? Nothing at Stripe changes; revoke it there if nobody needs it.
      </span>
      <Checkbox
        label="Also forget what was read with it"
        checked={isDataForgotten}
        onChange={(event) => setDataForgotten(event.currentTarget.checked)}
      />
    </RemoveButton>
  );
}

/** Takes a key only after Stripe was asked whose it is and what it may read. */
function ConnectForm({
  source,
  onDone,
}: {
  readonly source: StripeSource;
  readonly onDone: (isConnected: boolean) => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState<"check" | "connect" | null>(null);
  const [failure, setFailure] = useAnswerTo<Failure>(key);
  const [checked, setChecked] = useAnswerTo<StripeKeyCheck>(key);
  const isWhole = checked !== null && checked.permissions.every((one) => one.is_granted);
  const former = source.connection?.account_id;

  const check = async (): Promise<void> => {
    setBusy("check");
    setFailure(null);
    const result = await client.call("finance.stripe_check", { key });
    setBusy(null);
    if (result.ok) setChecked(result.value);
    else setFailure(result.error);
  };
  const connect = async (): Promise<void> => {
    setBusy("connect");
    const result = await client.call("finance.stripe_connect", { key });
    setBusy(null);
    if (!result.ok) return setFailure(result.error);
    setKey("");
    await queries.invalidateQueries({ queryKey: ["finance.stripe"] });
    showDone(`Connected ${accountName(result.value)}`);
    onDone(true);
  };
  return (
    <form
      aria-label="Connect Stripe"
      style={{ display: "flex", flexDirection: "column", gap: 12 }}
      onSubmit={(event) => {
        event.preventDefault();
        void (isWhole ? connect() : check());
      }}
    >
      <div className={css.cardHead}>
        <h2>Connect Stripe</h2>
      </div>
      <span className={css.quiet}>
        In Stripe&apos;s dashboard, under Developers, API keys, make a restricted key with these permissions,
        each set to Read, and nothing else.
      </span>
      <div className={css.row}>
        <CopyLink address={source.create_key_url} />
      </div>
      <dl className={css.permissions}>
        {source.permissions.map((permission) => (
          <Permission
            key={permission.name}
            permission={permission}
            isGranted={checked?.permissions.find(({ name }) => name === permission.name)?.is_granted ?? null}
          />
        ))}
      </dl>
      <PasswordInput
        label="Restricted key"
        placeholder="rk_live_…"
        description="It goes to this machine's keychain, is never shown again, and is only used to read from Stripe, never to change anything there."
        autoComplete="off"
        data-autofocus
        value={key}
        onChange={(event) => setKey(event.currentTarget.value)}
      />
      {failure ? (
        <Note tone="red" role="alert">
          <b>{failure.message}</b> {failure.advice}{" "}
          <CopyButton text={() => failureText(failure)} label="Copy details" />
        </Note>
      ) : null}
      {checked ? <Found checked={checked} former={former ?? null} isWhole={isWhole} /> : null}
      <div className={css.row}>
        <Button
          type="submit"
          variant={isWhole ? "default" : "filled"}
          loading={busy === "check"}
          disabled={key.trim() === "" || isWhole}
        >
          {checked && !isWhole ? "Check again" : "Check"}
        </Button>
        <Button
          variant={isWhole ? "filled" : "default"}
          loading={busy === "connect"}
          disabled={!isWhole}
          onClick={() => void connect()}
        >
          Connect
        </Button>
        <Button variant="subtle" onClick={() => onDone(false)}>
          Cancel
        </Button>
      </div>
    </form>
  );
}

function Found({
  checked,
  former,
  isWhole,
}: {
  readonly checked: StripeKeyCheck;
  readonly former: string | null;
  readonly isWhole: boolean;
}): ReactNode {
  const lacking = checked.permissions.filter((one) => !one.is_granted).map(({ row }) => row);
  return (
    <>
      <Note tone={isWhole ? "green" : "amber"} role="status">
        A {checked.mode} key of <b>{accountName(checked)}</b> ({clip(cleanText(checked.account_id), 60)}).{" "}
        {isWhole
          ? "It may read all that is needed."
          : `It lacks ${lacking.join(", ")}: edit the key in Stripe, set ${lacking.length === 1 ? "it" : "each"} to Read, then check again.`}
      </Note>
      {checked.mode === "test" ? <TestModeNote /> : null}
      {former !== null && former !== checked.account_id ? (
        <Note tone="amber">
          This project was connected to {clip(cleanText(former), 60)}. What was read of that account stays
          apart.
        </Note>
      ) : null}
    </>
  );
}

/** The desktop window opens no pages: the address goes to the person's own browser by hand. */
function CopyLink({ address }: { readonly address: string }): ReactNode {
  const [isDone, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    await copyText(address);
    setDone(true);
    setTimeout(() => setDone(false), 2_000);
  };
  return (
    <Button
      leftSection={isDone ? <CheckIcon size={14} /> : <LinkIcon size={14} />}
      onClick={() => void copy()}
    >
      {isDone ? "Copied: paste it into your browser" : "Copy the address of Stripe's form with them ticked"}
    </Button>
  );
}

function Permission({
  permission,
  isGranted,
}: {
  readonly permission: StripeSource["permissions"][number];
  /** Null while it was not asked. */
  readonly isGranted: boolean | null;
}): ReactNode {
  return (
    <>
      <dt>{cleanText(permission.row)}</dt>
      <dd>
        {isGranted === null ? (
          "Read"
        ) : isGranted ? (
          <span className={css.granted}>
            <CheckIcon size={13} /> may read
          </span>
        ) : (
          <span className={css.lacking}>
            <CloseIcon size={13} /> missing
          </span>
        )}
      </dd>
      <dd>
        <code>{cleanText(permission.name)}</code>
      </dd>
    </>
  );
}

const TestModeNote = (): ReactNode => (
  <Note tone="amber">
    Payments of test mode move no money. Against a project that takes live payments each of them counts as a
    leak.
  </Note>
);

const ModeTag = ({ mode }: { readonly mode: "live" | "test" }): ReactNode => (
  <Tag tone={mode === "live" ? "green" : "amber"}>{mode} mode</Tag>
);

const accountName = (account: Pick<StripeKeyCheck, "account_id" | "account_name">): string =>
  clip(cleanText(account.account_name ?? account.account_id), 80);
