import { ActionIcon, Button, Popover, Tooltip, useComputedColorScheme } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { ConnectionState } from "../../../shared/contract/connection.ts";
import { useNow, useZone } from "../lib/clock.ts";
import { useConsole } from "../lib/console.tsx";
import { formatDuration, formatHourMinute } from "../lib/format.ts";
import { isMac } from "../lib/keys.ts";
import { type LiveState, readOnlyWords, useLive, useSampleFilling } from "../lib/live.ts";
import { cleanText, clip } from "../lib/text.ts";
import { HelpIcon, MoonIcon, SearchIcon, SunIcon } from "../ui/icons.tsx";
import { Facts, Kbd, Note, Tag, Time } from "../ui/parts.tsx";
import { failureText } from "../ui/states.tsx";
import { CopyButton } from "../ui/parts.tsx";
import type { Tone } from "../ui/theme.ts";
import { openPalette } from "./command-palette.tsx";
import css from "./shell.module.css";
import { SyncPill } from "./sync-panel.tsx";

export function TopBar({ onHelp }: { readonly onHelp: () => void }): ReactNode {
  const profile = useLive((state) => state.connection?.profile ?? null);
  return (
    <header
      className={css.top}
      data-production={profile?.is_production || undefined}
      data-color={profile?.color ?? undefined}
    >
      <ProjectSign />
      <button type="button" className={css.search} onClick={openPalette}>
        <SearchIcon size={14} />
        <span>Search users, rules, requests, actions</span>
        <Kbd>{isMac() ? "⌘ K" : "Ctrl K"}</Kbd>
      </button>
      <div className={css.right}>
        <SyncPill />
        <ConnectionPill />
        <ThemeButton />
        <ActionIcon aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" onClick={onHelp}>
          <HelpIcon />
        </ActionIcon>
      </div>
    </header>
  );
}

function ProjectSign(): ReactNode {
  const connection = useLive((state) => state.connection);
  const filling = useSampleFilling();
  const profile = connection?.profile;
  if (!profile) return <span className={css.projectName}>Token Governance</span>;
  return (
    <a
      className={css.project}
      href="#/settings/connections"
      title={`${cleanText(profile.name)}: ${profile.url}`}
    >
      {profile.color ? <span className={css.projectColor} data-color={profile.color} /> : null}
      <bdi className={css.projectName}>{clip(cleanText(profile.name), 40)}</bdi>
      {profile.is_read_only ? (
        <Tag tone="violet" title={`${readOnlyWords}: nothing is changed in it from here.`}>
          Read only
        </Tag>
      ) : null}
      {profile.is_production ? (
        <strong className={css.production}>PRODUCTION</strong>
      ) : connection.project?.sample_data ? (
        filling === null ? (
          <Tag tone="blue">Sample data</Tag>
        ) : (
          <Tag
            tone="amber"
            title="Its past is still being written: the figures of every desk grow until then."
          >
            Sample data, {filling} % written
          </Tag>
        )
      ) : (
        <Tag tone="grey">{profile.kind === "local" ? "Local" : "Not production"}</Tag>
      )}
    </a>
  );
}

interface Standing {
  readonly tone: Tone;
  readonly words: string;
}

function replicaWords(replica: ConnectionState["replica"]): string {
  if (replica?.failure) return `not answering, reading from the project: ${replica.failure.message}`;
  if (!replica || replica.lag_seconds === null) return "not known yet";
  return replica.lag_seconds === 0 ? "up to date" : `${formatDuration(replica.lag_seconds * 1000)} behind`;
}

/** The state of the connection, in a word or two. */
export function standing(
  state: Pick<LiveState, "transport" | "transportSinceMs" | "connection">,
  zone: string,
): Standing {
  if (state.transport === "unauthorized") return { tone: "red", words: "Session ended" };
  if (state.transport === "lost")
    return {
      tone: "red",
      words: `Console not answering since ${formatHourMinute(state.transportSinceMs, zone)}`,
    };
  const connection: ConnectionState | null = state.connection;
  if (!connection || state.transport === "connecting") return { tone: "grey", words: "Starting…" };
  switch (connection.status) {
    case "starting":
      return { tone: "amber", words: "Starting…" };
    case "connecting":
      return { tone: "amber", words: "Connecting…" };
    case "catching_up":
      return { tone: "amber", words: "Catching up…" };
    case "live":
      return { tone: "green", words: "Live" };
    case "offline":
      return { tone: "red", words: `Offline since ${formatHourMinute(connection.since, zone)}` };
    case "refused":
      return { tone: "red", words: "Refused" };
  }
}

function ConnectionPill(): ReactNode {
  const transport = useLive((state) => state.transport);
  const transportSinceMs = useLive((state) => state.transportSinceMs);
  const connection = useLive((state) => state.connection);
  const client = useConsole();
  const zone = useZone();
  const [busy, setBusy] = useState(false);
  const { tone, words } = standing({ transport, transportSinceMs, connection }, zone);
  const now = useNow();
  const retry = async (): Promise<void> => {
    setBusy(true);
    await client.call("connection.retry", {});
    setBusy(false);
  };
  return (
    <Popover position="bottom-end" width={360}>
      <Popover.Target>
        <button type="button" className={css.pill} data-tone={tone} aria-live="polite">
          <span className={css.dot} />
          {words}
        </button>
      </Popover.Target>
      <Popover.Dropdown>
        <div style={{ display: "flex", flexDirection: "column", gap: 10 }}>
          {connection?.failure ? (
            <Note tone="red">
              {connection.failure.message} {connection.failure.advice}{" "}
              <CopyButton text={failureText(connection.failure)} label="Copy details" />
            </Note>
          ) : null}
          <Facts
            rows={[
              ["Project", connection?.profile ? clip(cleanText(connection.profile.name), 60) : "none"],
              ["Address", connection?.profile?.url ?? "—"],
              [
                "Status",
                connection ? `${words}, for ${formatDuration(now - Date.parse(connection.since))}` : words,
              ],
              ...(connection?.profile?.read_url
                ? ([["Read replica", replicaWords(connection.replica)]] satisfies [string, string][])
                : []),
              ["Last read", <Time key="t" at={connection?.last_sync_at} />],
              ["Schema", connection?.project?.schema_version ?? "—"],
            ]}
          />
          <div className={css.buttons}>
            <Button onClick={() => void retry()} loading={busy}>
              Try again now
            </Button>
            <Button component="a" href="#/settings/connections">
              Connections
            </Button>
          </div>
        </div>
      </Popover.Dropdown>
    </Popover>
  );
}

function ThemeButton(): ReactNode {
  const scheme = useComputedColorScheme("light");
  const client = useConsole();
  const queries = useQueryClient();
  const next = scheme === "dark" ? "light" : "dark";
  return (
    <Tooltip label={`Change to ${next}`}>
      <ActionIcon
        aria-label={`Change to ${next} theme`}
        onClick={async () => {
          const result = await client.call("settings.set", { theme: next });
          if (result.ok) queries.setQueryData(["settings.get", {}], result.value);
        }}
      >
        {scheme === "dark" ? <SunIcon /> : <MoonIcon />}
      </ActionIcon>
    </Tooltip>
  );
}
