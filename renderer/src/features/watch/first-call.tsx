import { SegmentedControl } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { useLive } from "../../lib/live.ts";
import { CopyButton } from "../../ui/parts.tsx";
import css from "./first-call.module.css";
import { firstPrograms } from "./first-programs.ts";

/** A project without calls: the program that makes the first one, and a sign that waits for it. */
export function FirstCall(): ReactNode {
  const url = useLive((state) => state.connection?.profile?.url) ?? "https://YOUR-PROJECT.supabase.co";
  const [name, setName] = useState(firstPrograms[0]?.name ?? "");
  const program = firstPrograms.find((each) => each.name === name) ?? firstPrograms[0];
  if (!program) return null;
  const code = program.code(url);
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
    </section>
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
