import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { Profile } from "../../../../shared/contract/connection.ts";
import { useConsole } from "../../lib/console.tsx";
import { cleanText, clip } from "../../lib/text.ts";
import { showDone } from "../../ui/notices.tsx";
import { Note } from "../../ui/parts.tsx";
import { FailureWords, KeyField, type Marks, MarkFields, ReplicaField } from "./project-fields.tsx";
import css from "./settings.module.css";

const keyWords: Readonly<Record<Profile["key_storage"], string>> = {
  keychain: "Leave it empty to keep the one in this machine's keychain.",
  session: "No keychain here: a key is kept until the console ends.",
  generated: "",
  missing: "There is none: give it here.",
};

/** Changes a project's name, marks, replica and key. A new key is tried first; one that does not work replaces nothing. */
export function EditProject({
  profile,
  onDone,
}: {
  readonly profile: Profile;
  readonly onDone: () => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [marks, setMarks] = useState<Marks>(profile);
  const [key, setKey] = useState("");
  const [readUrl, setReadUrl] = useState(profile.read_url ?? "");
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<Failure | null>(null);
  const save = async (): Promise<void> => {
    setBusy(true);
    setFailure(null);
    const { name, is_production, is_read_only, color } = marks;
    const result = await client.call("connection.edit", {
      profile_id: profile.profile_id,
      name: name.trim() || profile.name,
      is_production,
      is_read_only,
      color,
      read_url: readUrl,
      ...(key === "" ? {} : { key }),
    });
    setBusy(false);
    if (!result.ok) return setFailure(result.error);
    void queries.invalidateQueries({ queryKey: ["connection.profiles"] });
    showDone(`Saved ${clip(cleanText(result.value.name), 60)}${key === "" ? "" : ", with the new key"}`);
    onDone();
  };
  return (
    <form
      className={css.form}
      aria-label={`Edit ${cleanText(profile.name)}`}
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <MarkFields marks={marks} onChange={(change) => setMarks({ ...marks, ...change })} />
      <KeyField
        label="New service-role key"
        description={`${keyWords[profile.key_storage]} It is tried before it replaces the old one.`}
        value={key}
        onChange={setKey}
      />
      <ReplicaField value={readUrl} onChange={setReadUrl} />
      {failure ? (
        <Note tone="red" role="alert">
          <FailureWords failure={failure} />
        </Note>
      ) : null}
      <div className={css.buttons}>
        <Button type="submit" variant="filled" loading={busy}>
          Save
        </Button>
        <Button variant="subtle" onClick={onDone}>
          Cancel
        </Button>
      </div>
    </form>
  );
}
