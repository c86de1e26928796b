/** The check of the log against its seals: a button, and what came of it. */
import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { AuditCheck } from "../../../../shared/contract/audit.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import { useConsole } from "../../lib/console.tsx";
import { useIsLive } from "../../lib/live.ts";
import { counted } from "../../lib/text.ts";
import { Id, Note, Time } from "../../ui/parts.tsx";
import { FailureLine } from "../../ui/states.tsx";

type Check = ReturnType<typeof useAuditCheck>;

export function useAuditCheck() {
  const client = useConsole();
  const queries = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [found, setFound] = useState<{ readonly at: string; readonly check: AuditCheck } | null>(null);
  const [failure, setFailure] = useState<Failure | null>(null);
  const run = async (): Promise<void> => {
    setBusy(true);
    setFailure(null);
    const answer = await client.call("audit.verify", { command_id: crypto.randomUUID() });
    setBusy(false);
    if (answer.ok) setFound({ at: new Date().toISOString(), check: answer.value });
    else setFailure(answer.error);
    await queries.invalidateQueries({ queryKey: ["audit.list"] });
  };
  return { run, busy, found, failure };
}

export function CheckButton({ check }: { readonly check: Check }): ReactNode {
  const isLive = useIsLive();
  return (
    <Button
      loading={check.busy}
      disabled={!isLive}
      title={
        isLive
          ? "Whether every entry is still as it was sealed, and none was taken out or put in"
          : "Needs a connection to the project"
      }
      onClick={() => void check.run()}
    >
      Check the chain
    </Button>
  );
}

export function CheckResult({ check: { found, failure } }: { readonly check: Check }): ReactNode {
  if (failure) return <FailureLine failure={failure} />;
  if (!found) return null;
  const { at, check } = found;
  const newest =
    check.unsealed > 0
      ? ` The newest ${counted(check.unsealed, "entry", "entries")} will be sealed next.`
      : "";
  return (
    <div role="status" aria-label="Result of the check">
      {check.problem_count === 0 ? (
        <Note tone="green">
          <b>Sound</b>: {counted(check.entries_checked, "entry", "entries")} in {counted(check.seals, "seal")}{" "}
          are as they were sealed.{newest} Checked <Time at={at} />.
          {check.hash ? (
            <>
              {" "}
              Last seal <Id value={check.hash} head={12} tail={6} /> proves all of them, where a copy is kept
              elsewhere.
            </>
          ) : null}
        </Note>
      ) : (
        <Note tone="red">
          <b>Not as sealed</b>: {counted(check.problem_count, "part")} of the log{" "}
          {check.problem_count === 1 ? "was" : "were"} changed.
          <ul>
            {check.problems.map((problem) => (
              <li key={problem.seal_id ?? "end"}>
                {problem.seal_id === null ? (
                  <>Seals up to entry {problem.upto.toLocaleString("en")} are gone.</>
                ) : (
                  <>
                    Entries {(problem.after_id + 1).toLocaleString("en")} to{" "}
                    {problem.upto.toLocaleString("en")}, sealed <Time at={problem.sealed_at} />:{" "}
                    {problem.found === problem.entries
                      ? "an entry was changed"
                      : `${(problem.found ?? 0).toLocaleString("en")} of ${(problem.entries ?? 0).toLocaleString("en")} are there`}
                    .
                  </>
                )}
              </li>
            ))}
          </ul>
        </Note>
      )}
    </div>
  );
}
