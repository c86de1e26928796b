import { Button, Checkbox, PasswordInput, Progress, Switch, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { Profile } from "../../../../shared/contract/connection.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useLive } from "../../lib/live.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { RemoveButton } from "../../ui/ask.tsx";
import { PlusIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { CopyButton, Note, Section, Tag, Tokens } from "../../ui/parts.tsx";
import { failureText, QueryView } from "../../ui/states.tsx";
import css from "./settings.module.css";

type Checked = OperationOutput<"connection.check">;

const keyWords: Readonly<Record<Profile["key_storage"], string>> = {
  keychain: "key in this machine's keychain",
  session: "key kept until the console ends: no keychain here",
  generated: "key made by the local project",
  missing: "key missing: remove and add it again",
};

export function Connections(): ReactNode {
  const query = useCall("connection.profiles", {});
  const connection = useLive((state) => state.connection);
  const [adding, setAdding] = useState(false);
  return (
    <div className={css.column}>
      <Section
        title="Projects"
        aside={
          <Button leftSection={<PlusIcon size={14} />} onClick={() => setAdding(true)} disabled={adding}>
            Connect a Supabase project
          </Button>
        }
      >
        <QueryView query={query}>
          {(profiles) => (
            <div className={css.profiles} role="list" aria-label="Projects">
              {profiles.map((profile) => (
                <ProfileRow
                  key={profile.profile_id}
                  profile={profile}
                  isCurrent={connection?.profile?.profile_id === profile.profile_id}
                />
              ))}
            </div>
          )}
        </QueryView>
      </Section>
      {connection?.failure ? (
        <Note tone="red" role="alert">
          <FailureWords failure={connection.failure} />
        </Note>
      ) : null}
      {adding ? <AddProject onDone={() => setAdding(false)} /> : null}
      <SampleTraffic />
    </div>
  );
}

function FailureWords({ failure }: { readonly failure: Failure }): ReactNode {
  return (
    <>
      <b>{failure.message}</b> {failure.advice}{" "}
      <CopyButton text={() => failureText(failure)} label="Copy details" />
    </>
  );
}

function ProfileRow({
  profile,
  isCurrent,
}: {
  readonly profile: Profile;
  readonly isCurrent: boolean;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [busy, setBusy] = useState(false);
  const select = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("connection.select", { profile_id: profile.profile_id });
    setBusy(false);
    if (!result.ok) showFailure(`${cleanText(profile.name)} was not opened`, result.error);
  };
  const remove = async (): Promise<void> => {
    const result = await client.call("connection.remove", { profile_id: profile.profile_id });
    if (result.ok) showDone(`Removed ${clip(cleanText(profile.name), 60)} and its key`);
    else showFailure("Not removed", result.error);
    void queries.invalidateQueries({ queryKey: ["connection.profiles"] });
  };
  return (
    <div className={css.profile} role="listitem" data-current={isCurrent || undefined}>
      <div className={css.profileName}>
        <span>{clip(cleanText(profile.name), 60)}</span>
        {profile.is_production ? <strong className={css.production}>PRODUCTION</strong> : null}
        {profile.kind === "local" ? <Tag tone="grey">Local</Tag> : null}
        {isCurrent ? <Tag tone="blue">open</Tag> : null}
      </div>
      <div className={css.profileMeta}>
        {clip(cleanText(profile.url), 200)}, {keyWords[profile.key_storage]}
        {profile.read_url === null ? null : `, reads from ${clip(cleanText(profile.read_url), 200)}`}
      </div>
      <div className={css.profileButtons}>
        {isCurrent ? null : (
          <Button onClick={() => void select()} loading={busy}>
            Open
          </Button>
        )}
        {profile.kind === "local" ? null : (
          <RemoveButton
            label="Remove"
            name={`Remove ${cleanText(profile.name)}`}
            onRemove={() => void remove()}
          >
            <span>
              Forget this connection and its key on this machine? Nothing in the project changes. Changes of
              yours that wait to be sent to it are lost.
            </span>
          </RemoveButton>
        )}
      </div>
    </div>
  );
}

/** What a project answered to its address and key. */
function WhatIsThere({ checked }: { readonly checked: Checked }): ReactNode {
  const missing = checked.missing_migrations;
  return (
    <Note tone={missing.length > 0 ? "amber" : "green"} role="status">
      {missing.length > 0 ? (
        <>
          The key works, but {counted(missing.length, "migration is", "migrations are")} missing there:{" "}
          {missing.slice(0, 5).map(cleanText).join(", ")}
          {missing.length > 5 ? "…" : ""}. Run <code>npm run migrate</code> against its database first.
        </>
      ) : (
        <>
          The key works (role {cleanText(checked.role)}). Schema {cleanText(checked.project.schema_version)},{" "}
          <Tokens value={checked.project.accounts} /> users, PostgreSQL{" "}
          {cleanText(checked.project.server_version)}.
        </>
      )}
    </Note>
  );
}

function AddButtons({
  isChecked,
  canCheck,
  canAdd,
  busy,
  onAdd,
  onCancel,
}: {
  readonly isChecked: boolean;
  readonly canCheck: boolean;
  readonly canAdd: boolean;
  readonly busy: "check" | "add" | null;
  readonly onAdd: () => void;
  readonly onCancel: () => void;
}): ReactNode {
  return (
    <div className={css.buttons}>
      <Button
        type="submit"
        variant={isChecked ? "default" : "filled"}
        loading={busy === "check"}
        disabled={!canCheck}
      >
        Check
      </Button>
      <Button
        variant={isChecked ? "filled" : "default"}
        loading={busy === "add"}
        disabled={!canAdd}
        onClick={onAdd}
      >
        Add and open
      </Button>
      <Button variant="subtle" onClick={onCancel}>
        Cancel
      </Button>
    </div>
  );
}

/** Adds a project only after its address and key were tried, and says what is there. */
function AddProject({ onDone }: { readonly onDone: () => void }): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const [url, setUrl] = useState("");
  const [key, setKey] = useState("");
  const [readUrl, setReadUrl] = useState("");
  const [isProduction, setProduction] = useState(true);
  const [busy, setBusy] = useState<"check" | "add" | null>(null);
  const [failure, setFailure] = useState<Failure | null>(null);
  const [checked, setChecked] = useState<Checked | null>(null);
  const forget = (): void => {
    setChecked(null);
    setFailure(null);
  };
  const check = async (): Promise<boolean> => {
    setBusy("check");
    forget();
    const result = await client.call("connection.check", { url, key, read_url: readUrl });
    setBusy(null);
    if (result.ok) setChecked(result.value);
    else setFailure(result.error);
    return result.ok;
  };
  const add = async (): Promise<void> => {
    if (!checked && !(await check())) return;
    setBusy("add");
    const host = /^https?:\/\/([^/:]+)/i.exec(url.trim())?.[1] ?? "Project";
    const result = await client.call("connection.add", {
      name: name.trim() || host,
      url,
      key,
      read_url: readUrl,
      is_production: isProduction,
    });
    if (!result.ok) {
      setBusy(null);
      setFailure(result.error);
      return;
    }
    void queries.invalidateQueries({ queryKey: ["connection.profiles"] });
    const selected = await client.call("connection.select", { profile_id: result.value.profile_id });
    setBusy(null);
    if (!selected.ok) showFailure("Added, but not opened", selected.error);
    onDone();
  };
  const missing = checked?.missing_migrations ?? [];
  return (
    <form
      className={css.form}
      aria-label="Connect a Supabase project"
      onSubmit={(event) => {
        event.preventDefault();
        void (checked ? add() : check());
      }}
    >
      <h2>Connect a Supabase project</h2>
      <TextInput
        label="Project URL"
        placeholder="https://abcdefghijkl.supabase.co"
        description="In the Supabase dashboard: Project Settings, Data API."
        data-autofocus
        value={url}
        onChange={(event) => {
          setUrl(event.currentTarget.value);
          forget();
        }}
      />
      <PasswordInput
        label="Service-role key"
        placeholder="sb_secret_… or a key that starts with eyJ"
        description="In Project Settings, API Keys. It goes to this machine's keychain and is never shown again."
        autoComplete="off"
        value={key}
        onChange={(event) => {
          setKey(event.currentTarget.value);
          forget();
        }}
      />
      <TextInput
        label="Read replica (optional)"
        placeholder="https://abcdefghijkl-rr-eu-west-1-aaaaa.supabase.co"
        description="Lists, search and the feed are read there; every act still goes to the project itself."
        value={readUrl}
        onChange={(event) => {
          setReadUrl(event.currentTarget.value);
          forget();
        }}
      />
      <TextInput
        label="Name"
        placeholder="How you call it"
        maxLength={200}
        value={name}
        onChange={(event) => setName(event.currentTarget.value)}
      />
      <Checkbox
        label="This is production"
        description="Marks every screen in red, so that nobody takes it for a test."
        checked={isProduction}
        onChange={(event) => setProduction(event.currentTarget.checked)}
      />
      {failure ? (
        <Note tone="red" role="alert">
          <FailureWords failure={failure} />
        </Note>
      ) : null}
      {checked ? <WhatIsThere checked={checked} /> : null}
      <AddButtons
        isChecked={checked !== null}
        canCheck={url !== "" && key !== ""}
        canAdd={url !== "" && key !== "" && missing.length === 0}
        busy={busy}
        onAdd={() => void add()}
        onCancel={onDone}
      />
    </form>
  );
}

function SampleTraffic(): ReactNode {
  const client = useConsole();
  const traffic = useLive((state) => state.connection?.sample_traffic ?? null);
  const [busy, setBusy] = useState(false);
  if (!traffic) return null;
  const set = async (running: boolean): Promise<void> => {
    setBusy(true);
    const result = await client.call("connection.sample_traffic", { running });
    setBusy(false);
    if (result.ok) useLive.setState({ connection: result.value });
    else showFailure("The sample traffic was not switched", result.error);
  };
  return (
    <Section title="Sample data">
      <div className={css.row}>
        <div>Invented traffic</div>
        <div>
          <Switch
            label={traffic.running ? "Running" : "Stopped"}
            checked={traffic.running}
            disabled={busy}
            onChange={(event) => void set(event.currentTarget.checked)}
          />
          <p className={css.quiet} style={{ margin: "6px 0 0" }}>
            Made-up users that call the true enforcement functions of the local project, a few times a second.{" "}
            {traffic.calls.toLocaleString("en")} calls since the start. It never touches a project that you
            connected.
          </p>
          {traffic.filling === null || traffic.filling >= 1 ? null : (
            <div style={{ marginTop: 10 }}>
              <Progress value={traffic.filling * 100} aria-label="Filling in past days" />
              <span className={css.quiet}>Filling in past days: {Math.round(traffic.filling * 100)} %</span>
            </div>
          )}
        </div>
      </div>
    </Section>
  );
}
