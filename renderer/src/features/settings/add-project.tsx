import { Button, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { useAnswerTo, useConsole } from "../../lib/console.tsx";
import { cleanText, counted } from "../../lib/text.ts";
import { showFailure } from "../../ui/notices.tsx";
import { Note } from "../../ui/parts.tsx";
import { PrepareProject } from "./prepare-project.tsx";
import { FailureWords, KeyField, type Marks, MarkFields, ReplicaField } from "./project-fields.tsx";
import css from "./settings.module.css";

type Checked = OperationOutput<"connection.check">;

/** What a project answered to its address and key. */
function WhatIsThere({ checked }: { readonly checked: Checked }): ReactNode {
  const { project, missing_migrations: missing } = checked;
  if (project === null || missing.length > 0) {
    return (
      <Note tone="amber" role="status">
        The key works, but {counted(missing.length, "migration is", "migrations are")} missing there: see
        below.
      </Note>
    );
  }
  return (
    <Note tone="green" role="status">
      The key works (role {cleanText(checked.role)}). Schema {cleanText(project.schema_version)},{" "}
      {counted(project.accounts, "user")}, PostgreSQL {cleanText(project.server_version)}.
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
export function AddProject({ onDone }: { readonly onDone: () => void }): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [url, setUrl] = useState("");
  const [key, setKey] = useState("");
  const [readUrl, setReadUrl] = useState("");
  const [marks, setMarks] = useState<Marks>(newMarks);
  const [busy, setBusy] = useState<"check" | "add" | null>(null);
  const asked = { url, key, read_url: readUrl };
  const [failure, setFailure] = useAnswerTo<Failure>(asked);
  const [checked, setChecked] = useAnswerTo<Checked>(asked);
  const check = async (): Promise<boolean> => {
    setBusy("check");
    setChecked(null);
    setFailure(null);
    const result = await client.call("connection.check", asked);
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
      ...marks,
      ...asked,
      name: marks.name.trim() || host,
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
    <>
      <form
        className={css.form}
        aria-label="Connect a Supabase project"
        onSubmit={(event) => {
          event.preventDefault();
          if (busy === null) void (checked && missing.length === 0 ? add() : check());
        }}
      >
        <h2>Connect a Supabase project</h2>
        <TextInput
          label="Project URL"
          placeholder="https://abcdefghijkl.supabase.co"
          description="In the Supabase dashboard: Project Settings, Data API."
          data-autofocus
          value={url}
          onChange={(event) => setUrl(event.currentTarget.value)}
        />
        <KeyField
          description="In Project Settings, API Keys. It goes to this machine's keychain and is never shown again."
          value={key}
          onChange={setKey}
        />
        <ReplicaField value={readUrl} onChange={setReadUrl} />
        <MarkFields marks={marks} onChange={(change) => setMarks({ ...marks, ...change })} />
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
      {checked && missing.length > 0 ? (
        <PrepareProject url={url} missing={missing} onApplied={() => void check()} />
      ) : null}
    </>
  );
}

const newMarks: Marks = { name: "", is_production: true, is_read_only: false, color: null };
