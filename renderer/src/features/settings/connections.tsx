import { Button, Progress, Switch } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Profile } from "../../../../shared/contract/connection.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useLive } from "../../lib/live.ts";
import { isDesktop } from "../../lib/router.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { RemoveButton } from "../../ui/ask.tsx";
import { PlusIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Note, Section, Tag } from "../../ui/parts.tsx";
import { QueryView } from "../../ui/states.tsx";
import { AddProject } from "./add-project.tsx";
import { EditProject } from "./edit-project.tsx";
import { PrepareProject } from "./prepare-project.tsx";
import { colorStyle, FailureWords } from "./project-fields.tsx";
import css from "./settings.module.css";

const keyWords: Readonly<Record<Profile["key_storage"], string>> = {
  keychain: "key in this machine's keychain",
  session: "key kept until the console ends: no keychain here",
  generated: "key made by the local project",
  missing: "key missing: edit it",
};

export function Connections(): ReactNode {
  // Another window may change it.
  const query = useCall("connection.profiles", {}, { refetchMs: 5_000 });
  const connection = useLive((state) => state.connection);
  const client = useConsole();
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
      {connection?.profile && connection.failure?.code === "migrations_missing" ? (
        <PrepareProject
          url={connection.profile.url}
          missing={(connection.failure.details ?? "").split("\n").filter((line) => /^\d{14}_/.test(line))}
          onApplied={() => void client.call("connection.retry", {})}
        />
      ) : null}
      {adding ? <AddProject onDone={() => setAdding(false)} /> : null}
      <SampleTraffic />
    </div>
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
  const [isEditing, setEditing] = useState(false);
  const select = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("connection.select", { profile_id: profile.profile_id });
    setBusy(false);
    if (!result.ok) showFailure(`${cleanText(profile.name)} was not opened`, result.error);
  };
  const openWindow = async (): Promise<void> => {
    const result = await client.call("connection.open_window", { profile_id: profile.profile_id });
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
        {profile.color ? <span className={css.swatch} style={colorStyle(profile.color)} /> : null}
        <span>
          <bdi>{clip(cleanText(profile.name), 60)}</bdi>
        </span>
        {profile.is_production ? <strong className={css.production}>PRODUCTION</strong> : null}
        {profile.is_read_only ? <Tag tone="violet">Read only</Tag> : null}
        {profile.kind === "local" ? <Tag tone="grey">Local</Tag> : null}
        {isCurrent ? <Tag tone="blue">open</Tag> : null}
      </div>
      <div className={css.profileMeta}>
        {[
          clip(cleanText(profile.url), 200),
          keyWords[profile.key_storage],
          profile.read_url === null ? "" : `reads from ${clip(cleanText(profile.read_url), 200)}`,
        ]
          // The local project has no address before it runs.
          .filter(Boolean)
          .join(", ")}
      </div>
      <div className={css.profileButtons}>
        {isCurrent ? null : (
          <Button onClick={() => void select()} loading={busy}>
            Open
          </Button>
        )}
        {isCurrent || !isDesktop() ? null : (
          <Button
            aria-label={`Open ${cleanText(profile.name)} in a window of its own`}
            title="Both projects stay open, each in its window"
            onClick={() => void openWindow()}
          >
            In its own window
          </Button>
        )}
        {profile.kind === "local" ? null : (
          <Button aria-label={`Edit ${cleanText(profile.name)}`} onClick={() => setEditing(!isEditing)}>
            Edit
          </Button>
        )}
        {profile.kind === "local" ? null : (
          <RemoveButton
            label="Remove"
            name={`Remove ${cleanText(profile.name)}`}
            onRemove={() => void remove()}
          >
            <span>
              Forget this connection and everything of it on this machine: its key, what was read from it, its
              runs of finance, and changes of yours that wait to be sent? Nothing in the project changes.
            </span>
          </RemoveButton>
        )}
      </div>
      {isEditing ? (
        <div className={css.profileEdit}>
          <EditProject profile={profile} onDone={() => setEditing(false)} />
        </div>
      ) : null}
    </div>
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
            {counted(traffic.calls, "call")} since the start. It never touches a project that you connected.
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
