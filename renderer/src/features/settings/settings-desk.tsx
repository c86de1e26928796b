import { Button, SegmentedControl, Select, Switch, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { OperationInput } from "../../../../shared/contract/operations.ts";
import type { Settings } from "../../../../shared/contract/settings.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { viewerZone } from "../../lib/format.ts";
import { useLive } from "../../lib/live.ts";
import { usePlace } from "../../lib/router.ts";
import { cleanText } from "../../lib/text.ts";
import { DeskBar } from "../../ui/desk.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { CopyButton, Facts, SafeText, Section } from "../../ui/parts.tsx";
import { QueryView } from "../../ui/states.tsx";
import { Connections } from "./connections.tsx";
import { Updates } from "./updates.tsx";
import css from "./settings.module.css";
import { chooseLanguage, translated } from "../../lib/language.ts";

const pages = [
  { id: "connections", name: "Connections" },
  { id: "preferences", name: "Preferences" },
  { id: "about", name: "About" },
] as const;

export function SettingsDesk(): ReactNode {
  const page = usePlace().parts[1] ?? "connections";
  return (
    <>
      <DeskBar title="Settings" />
      <div className={css.layout}>
        <nav className={css.nav} aria-label="Settings">
          {pages.map((each) => (
            <a
              key={each.id}
              href={`#/settings/${each.id}`}
              aria-current={page === each.id ? "page" : undefined}
            >
              {each.name}
            </a>
          ))}
        </nav>
        <div className={css.content}>
          {page === "preferences" ? <Preferences /> : page === "about" ? <About /> : <Connections />}
        </div>
      </div>
    </>
  );
}

function Preferences(): ReactNode {
  const query = useCall("settings.get", {}, { staleMs: 60_000 });
  return (
    <div className={css.column}>
      <QueryView query={query}>{(settings) => <PreferenceForm settings={settings} />}</QueryView>
    </div>
  );
}

function PreferenceForm({ settings }: { readonly settings: Settings }): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [operator, setOperator] = useState(settings.operator);
  const set = async (change: OperationInput<"settings.set">): Promise<void> => {
    const result = await client.call("settings.set", change);
    if (!result.ok) return showFailure("Not changed", result.error);
    queries.setQueryData(["settings.get", {}], result.value);
    if (change.language) chooseLanguage(change.language);
  };
  const isChanged = operator.trim() !== settings.operator && operator.trim() !== "";
  return (
    <>
      <Section title="You">
        <div className={css.row}>
          <div>Your name</div>
          <form
            className={css.buttons}
            onSubmit={(event) => {
              event.preventDefault();
              if (isChanged) void set({ operator: operator.trim() });
            }}
          >
            <TextInput
              aria-label="Your name"
              w={260}
              maxLength={200}
              value={operator}
              error={operator.trim() === "" ? "The audit needs a name." : null}
              onChange={(event) => setOperator(event.currentTarget.value)}
            />
            <Button type="submit" disabled={!isChanged}>
              Save
            </Button>
          </form>
          <span />
          <span className={css.quiet}>Every act of yours is audited under this name.</span>
        </div>
      </Section>
      <Section title="Appearance">
        <div className={css.row}>
          <div>Theme</div>
          <div>
            <SegmentedControl
              aria-label="Theme"
              data={[
                { value: "system", label: "As the system" },
                { value: "light", label: "Light" },
                { value: "dark", label: "Dark" },
              ]}
              value={settings.theme}
              onChange={(theme) => void set({ theme })}
            />
          </div>
          <div>Language</div>
          <div>
            <SegmentedControl
              aria-label="Language"
              data={[
                { value: "system", label: "As the system" },
                // Each in its own words: who cannot read the one finds the other.
                ...languageNames,
              ]}
              value={settings.language}
              onChange={(language) => void set({ language })}
            />
          </div>
          <span />
          <span className={css.quiet}>
            The page is loaded again. Numbers and dates are written as this machine is set to, where it is set
            to this language.
          </span>
          <div>Times are shown in</div>
          <div>
            <Select
              aria-label="Time zone"
              w={260}
              searchable
              allowDeselect={false}
              data={zoneChoices(settings.time_zone)}
              value={settings.time_zone}
              onChange={(value) => value && void set({ time_zone: value })}
            />
          </div>
        </div>
      </Section>
      <Section title="Notifications">
        <div className={css.row}>
          <div>On the desktop</div>
          <div>
            <Switch
              aria-label="Desktop notifications"
              label={settings.notifications ? "On" : "Off"}
              checked={settings.notifications}
              onChange={(event) => void set({ notifications: event.currentTarget.checked })}
            />
            <p className={css.quiet} style={{ margin: "6px 0 0" }}>
              New alerts, changes of yours that could not be sent, and long work that is done.
            </p>
          </div>
        </div>
      </Section>
    </>
  );
}

const languageNames = [
  { value: "en", label: "English" },
  { value: "de", label: "Deutsch" },
] as const;

function zoneChoices(current: string): { value: string; label: string }[] {
  const named = Intl.supportedValuesOf("timeZone");
  const choices = [
    { value: "local", label: `This machine's zone (${viewerZone()})` },
    { value: "account", label: "Each user's own zone" },
    { value: "UTC", label: "UTC" },
    ...named.filter((zone) => zone !== "UTC").map((zone) => ({ value: zone, label: zone })),
  ];
  return choices.some((choice) => choice.value === current)
    ? choices
    : [{ value: current, label: current }, ...choices];
}

const keychainWords = {
  keytar: "the system's, through keytar",
  "napi-keyring": "the system's, through @napi-rs/keyring",
  none: "none: keys are kept until the console ends",
} as const;

function About(): ReactNode {
  const query = useCall("settings.about", {});
  const project = useLive((state) => state.connection?.project ?? null);
  return (
    <div className={css.column}>
      <QueryView query={query}>
        {(about) => {
          const facts = [
            ["Version", about.version],
            ["Runs in", about.host === "electron" ? "its own window" : "the browser, on this machine only"],
            [
              "Keychain",
              `${keychainWords[about.keychain.kind]}${about.keychain.note ? `. ${translated(about.keychain.note)}` : ""}`,
              about.keychain.detail,
            ],
            [
              "Local store",
              `${about.store.path}${about.store.note ? `. ${translated(about.store.note)}` : ""}`,
            ],
            [
              "Project's schema",
              project ? `${project.schema_version} on PostgreSQL ${project.server_version}` : "—",
            ],
            ["Preset", project?.preset ?? "no preset"],
          ] as const;
          return (
            <>
              <Section
                title="Token Governance"
                aside={
                  <CopyButton
                    label="Copy all of this"
                    text={() =>
                      facts
                        .map(([name, value, detail]) => `${name}: ${value}${detail ? ` (${detail})` : ""}`)
                        .join("\n")
                    }
                  />
                }
              >
                <Facts
                  rows={facts.map(([name, value, detail]) => [
                    name,
                    <>
                      {cleanText(value)} {detail ? <SafeText text={detail} /> : null}
                    </>,
                  ])}
                />
              </Section>
              <Updates />
              <Section title={`Migrations this console brings (${about.migrations.length})`}>
                <ol className={css.migrations}>
                  {about.migrations.map((migration) => (
                    <li key={migration}>{cleanText(migration)}</li>
                  ))}
                </ol>
              </Section>
            </>
          );
        }}
      </QueryView>
    </div>
  );
}
