import { Button, Progress, SegmentedControl, Select } from "@mantine/core";
import { type ReactNode, useEffect, useState } from "react";
import type { Result } from "../../../../shared/governance/result.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { UpdateState } from "../../../../shared/contract/updates.ts";
import { useConsole } from "../../lib/console.tsx";
import { cleanText } from "../../lib/text.ts";
import { showFailure } from "../../ui/notices.tsx";
import { Note, Section, Time } from "../../ui/parts.tsx";
import { FailureWords } from "./project-fields.tsx";
import css from "./settings.module.css";
import { translated } from "../../lib/language.ts";

/** Newer versions of this program: what is there, what it brings, and when it is put in place. */
export function Updates(): ReactNode {
  const client = useConsole();
  const [state, setState] = useState<UpdateState | null>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => client.follow("updates", {}, setState), [client]);
  if (!state) return null;
  if (state.status === "off")
    return <Section title="Newer versions">{state.why ? translated(state.why) : null}</Section>;
  const run = async (act: () => Promise<Result<unknown, Failure>>): Promise<void> => {
    setBusy(true);
    const result = await act();
    setBusy(false);
    if (!result.ok) showFailure("Not done", result.error);
  };
  const { earlier, stays_at: staysAt } = state;
  return (
    <Section title="Newer versions">
      <div className={css.steps}>
        <Standing state={state} />
        {state.failure ? (
          <Note tone="amber" role="alert">
            <FailureWords failure={state.failure} />
          </Note>
        ) : null}
        <div className={css.buttons}>
          {state.status === "ready" ? (
            <Button
              variant="filled"
              loading={busy}
              onClick={() => void run(() => client.call("updates.restart", {}))}
            >
              Restart with {state.version}
            </Button>
          ) : (
            <Button
              loading={busy || state.status === "checking"}
              disabled={state.status === "downloading"}
              onClick={() => void run(() => client.call("updates.check", {}))}
            >
              Look for a newer version
            </Button>
          )}
        </div>
        {state.notes ? (
          <details className={css.notes}>
            <summary>What {state.version} brings</summary>
            <pre>{cleanText(state.notes)}</pre>
          </details>
        ) : null}
        <div className={css.row}>
          <div>Take</div>
          <SegmentedControl
            aria-label="Which versions"
            data={[
              { value: "stable", label: "Stable versions" },
              { value: "beta", label: "Beta versions too" },
            ]}
            value={state.channel}
            onChange={(channel) => void run(() => client.call("updates.set_channel", { channel }))}
          />
          {earlier.length > 0 || staysAt !== null ? (
            <>
              <div>Go back to</div>
              <Select
                aria-label="Go back to an earlier version"
                w={260}
                clearable
                placeholder="the newest is used"
                data={[...new Set([...(staysAt === null ? [] : [staysAt]), ...earlier])]}
                value={staysAt}
                onChange={(version) => void run(() => client.call("updates.stay_at", { version }))}
              />
            </>
          ) : null}
        </div>
      </div>
    </Section>
  );
}

function Standing({ state }: { readonly state: UpdateState }): ReactNode {
  switch (state.status) {
    case "checking":
      return <p>Looking for a newer version…</p>;
    case "downloading":
      return (
        <div role="status">
          Fetching {state.version}
          <Progress value={(state.progress ?? 0) * 100} aria-label={`Fetching ${state.version ?? ""}`} />
        </div>
      );
    case "ready":
      return (
        <Note tone="green" role="status">
          Version {state.version} is ready. It is put in place when you quit, or now. What you did and what
          waits to be sent is kept.
        </Note>
      );
    default:
      return (
        <p className={css.quiet}>
          You have {state.current}
          {state.stays_at === null ? "" : `, and stay at ${state.stays_at}`}.{" "}
          {state.checked_at ? (
            <>
              Last looked <Time at={state.checked_at} />.
            </>
          ) : (
            "Not looked yet."
          )}
        </p>
      );
  }
}
