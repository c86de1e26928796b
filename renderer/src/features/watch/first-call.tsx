import { Button, SegmentedControl } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { useConsole } from "../../lib/console.tsx";
import { useLive, useSampleFilling } from "../../lib/live.ts";
import { showFailure } from "../../ui/notices.tsx";
import { CopyButton } from "../../ui/parts.tsx";
import { EmptyView } from "../../ui/states.tsx";
import css from "./first-call.module.css";
import { ChoosePreset } from "./choose-preset.tsx";
import { firstPrograms } from "./first-programs.ts";

/** A project without calls: the program that makes the first one, and a sign that waits for it. */
export function FirstCall(): ReactNode {
  const url = useLive((state) => state.connection?.profile?.url) ?? "https://YOUR-PROJECT.supabase.co";
  const [name, setName] = useState(firstPrograms[0]?.name ?? "");
  const project = useLive((state) => state.connection?.project ?? null);
  const filling = useSampleFilling();
  const program = firstPrograms.find((each) => each.name === name) ?? firstPrograms[0];
  if (!program) return null;
  const code = program.code(url);
  if (project && project.plans.length === 0) return <ChoosePreset />;
  if (filling !== null)
    return (
      <EmptyView title="The sample data is being written">
        Its users call from now on, and their past comes with it. The first calls appear here within seconds.
      </EmptyView>
    );
  return (
    <section className={css.first} aria-label="The first call">
      <h2>No calls yet</h2>
      <p>Install the guard, paste this into your backend, and the first call appears here.</p>
      <p className={css.waiting} role="status">
        <span className={css.sign} aria-hidden="true" /> Waiting for the first call. Nothing comes?{" "}
        <code>npx @token-governance/guard</code> checks the settings.
      </p>
      <SegmentedControl
        aria-label="Stack"
        size="xs"
        data={firstPrograms.map((each) => each.name)}
        value={program.name}
        onChange={setName}
      />
      <Lines text={program.install} label="Copy the command" />
      <Lines text={code} label="Copy the program" />
      <OtherWays />
    </section>
  );
}

/** For those who only want to look, or have their project elsewhere. */
function OtherWays(): ReactNode {
  const client = useConsole();
  const [busy, setBusy] = useState(false);
  const connection = useLive((state) => state.connection);
  const isLocal = connection?.profile?.kind === "local";
  const isEmpty = connection?.project?.accounts === 0;
  const traffic = connection?.sample_traffic ?? null;
  const fill = async (): Promise<void> => {
    setBusy(true);
    // Sample data is given the local project alone.
    const opened = isLocal ? null : await client.call("connection.select", { profile_id: "local" });
    const started =
      opened && !opened.ok ? opened : await client.call("connection.sample_traffic", { running: true });
    setBusy(false);
    if (!started.ok) showFailure("There is no sample data", started.error);
  };
  return (
    <div className={css.ways} role="group" aria-label="Other ways to begin">
      <span>Only looking, or is your project elsewhere?</span>
      {isLocal && (!isEmpty || traffic === null || traffic.running) ? null : (
        <Button loading={busy} onClick={() => void fill()}>
          {isLocal ? "Fill with sample data" : "Open the local project with sample data"}
        </Button>
      )}
      <Button component="a" href="#/settings/connections">
        {isLocal ? "Connect a Supabase project" : "Connect another project"}
      </Button>
    </div>
  );
}

function Lines({ text, label }: { readonly text: string; readonly label: string }): ReactNode {
  return (
    <div className={css.lines}>
      <pre>{text}</pre>
      <CopyButton text={text} label={label} />
    </div>
  );
}
