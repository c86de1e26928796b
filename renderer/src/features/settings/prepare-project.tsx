import { Button, Checkbox, FileButton, PasswordInput, SegmentedControl, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { OperationInput, OperationOutput } from "../../../../shared/contract/operations.ts";
import { useAnswerTo, useCall, useConsole } from "../../lib/console.tsx";
import { saveFile } from "../../lib/csv.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { CopyButton, Note } from "../../ui/parts.tsx";
import { QueryView } from "../../ui/states.tsx";
import { FailureWords } from "./project-fields.tsx";
import css from "./settings.module.css";

type Plan = OperationOutput<"setup.plan">;
type Look = OperationOutput<"setup.look">;

/**
 * A project that lacks migrations: what would be made, what is in the way, and two ways to apply them. The database's
 * password lives in this form alone and goes with it.
 */
export function PrepareProject({
  url,
  missing,
  onApplied,
}: {
  readonly url: string;
  readonly missing: readonly string[];
  readonly onApplied: () => void;
}): ReactNode {
  const query = useCall("setup.plan", { url }, { staleMs: 60_000 });
  return (
    <section className={css.form} aria-label="Prepare the project">
      <QueryView query={query}>
        {(plan) => <Prepare plan={plan} missing={missing} onApplied={onApplied} />}
      </QueryView>
    </section>
  );
}

function Prepare({
  plan,
  missing,
  onApplied,
}: {
  readonly plan: Plan;
  readonly missing: readonly string[];
  readonly onApplied: () => void;
}): ReactNode {
  const [way, setWay] = useState<"here" | "command">("here");
  const isNew = missing.length >= plan.migrations.length;
  return (
    <>
      <h2>{isNew ? "This project has no governance yet" : "This project is behind this console"}</h2>
      <p className={css.quiet}>
        {isNew ? (
          <>
            It gets the schema <code>governance</code> with {plan.makes.tables} tables, and{" "}
            {plan.makes.functions} functions in <code>public</code> that the service key alone may call. Your
            own tables are not touched.
            {plan.migrations.length === 1 ? " All of it is applied, or nothing." : ""}
          </>
        ) : (
          <>
            {counted(missing.length, "migration is", "migrations are")} missing:{" "}
            {missing.slice(0, 5).map(cleanText).join(", ")}
            {missing.length > 5 ? "…" : ""}. Each is applied whole, or not at all; your data stays.
          </>
        )}
      </p>
      <SegmentedControl
        aria-label="How to apply them"
        data={[
          { value: "here", label: "Apply from here" },
          { value: "command", label: "By a command" },
        ]}
        value={way}
        onChange={setWay}
      />
      {way === "here" ? (
        <FromHere plan={plan} onApplied={onApplied} />
      ) : (
        <ByCommand plan={plan} onApplied={onApplied} />
      )}
    </>
  );
}

function FromHere({ plan, onApplied }: { readonly plan: Plan; readonly onApplied: () => void }): ReactNode {
  const client = useConsole();
  const [database, setDatabase] = useState<OperationInput<"setup.look">>({
    address: plan.address ?? "",
    password: "",
    certificate: "",
    skips_certificate: false,
  });
  const [busy, setBusy] = useState<"look" | "apply" | null>(null);
  const [look, setLook] = useAnswerTo<Look>(database);
  const [failure, setFailure] = useAnswerTo<Failure>(database);
  const change = (part: Partial<typeof database>): void => setDatabase((now) => ({ ...now, ...part }));
  const examine = async (): Promise<void> => {
    setBusy("look");
    setFailure(null);
    const result = await client.call("setup.look", database);
    setBusy(null);
    if (result.ok) setLook(result.value);
    else setFailure(result.error);
  };
  const apply = async (): Promise<void> => {
    setBusy("apply");
    setFailure(null);
    const result = await client.call("setup.apply", database);
    setBusy(null);
    if (!result.ok) return setFailure(result.error);
    change({ password: "" });
    setLook(null);
    showDone(
      result.value.applied.length === 0
        ? "Nothing was missing any more"
        : `Applied ${counted(result.value.applied.length, "migration", "migrations")}`,
    );
    onApplied();
  };
  const canApply = look !== null && look.in_the_way.length === 0 && look.missing.length > 0;
  return (
    <form
      className={css.steps}
      aria-label="Apply from here"
      onSubmit={(event) => {
        event.preventDefault();
        if (busy === null && database.address !== "") void (canApply ? apply() : examine());
      }}
    >
      <TextInput
        label="Database address"
        placeholder="postgresql://postgres@db.abcdefghijkl.supabase.co:5432/postgres"
        description="In the dashboard under Connect. Without IPv6, take the session pooler's address."
        spellCheck={false}
        value={database.address}
        onChange={(event) => change({ address: event.currentTarget.value })}
      />
      <PasswordInput
        label="Database password"
        description="Used for this alone and kept nowhere. It is not the service-role key."
        autoComplete="off"
        value={database.password}
        onChange={(event) => change({ password: event.currentTarget.value })}
      />
      {failure?.code === "certificate" || database.certificate !== "" || database.skips_certificate ? (
        <Certificate database={database} onChange={change} />
      ) : null}
      {failure ? (
        <Note tone="red" role="alert">
          <FailureWords failure={failure} />
        </Note>
      ) : null}
      {look ? <WhatWasFound look={look} /> : null}
      <div className={css.buttons}>
        <Button
          variant={canApply ? "default" : "filled"}
          loading={busy === "look"}
          disabled={busy !== null || database.address === ""}
          onClick={() => void examine()}
        >
          Look at the database
        </Button>
        <Button
          type="submit"
          variant={canApply ? "filled" : "default"}
          loading={busy === "apply"}
          disabled={!canApply || busy !== null}
        >
          {look && look.missing.length > 1 ? (
            <>Apply {look.missing.length.toLocaleString("en")} migrations</>
          ) : (
            "Apply the migration"
          )}
        </Button>
      </div>
    </form>
  );
}

function Certificate({
  database,
  onChange,
}: {
  readonly database: OperationInput<"setup.look">;
  readonly onChange: (part: Partial<OperationInput<"setup.look">>) => void;
}): ReactNode {
  return (
    <div className={css.buttons}>
      <FileButton
        accept=".crt,.pem,.cer"
        onChange={(file) => {
          void file?.text().then((certificate) => onChange({ certificate, skips_certificate: false }));
        }}
      >
        {(props) => (
          <Button {...props}>
            {database.certificate ? "Another certificate…" : "Choose the certificate…"}
          </Button>
        )}
      </FileButton>
      <Checkbox
        label="Go on without checking the server's certificate"
        checked={database.skips_certificate ?? false}
        onChange={(event) => onChange({ skips_certificate: event.currentTarget.checked })}
      />
    </div>
  );
}

function WhatWasFound({ look }: { readonly look: Look }): ReactNode {
  const { in_the_way: inTheWay, missing } = look;
  if (inTheWay.length > 0) {
    return (
      <Note tone="red" role="alert">
        <b>In the way:</b> the project has{" "}
        {counted(inTheWay.length, "object of its own", "objects of its own")} under a name that is needed.
        Rename or move {inTheWay.length === 1 ? "it" : "them"}, then look again.
        <ul className={css.found}>
          {inTheWay.slice(0, 20).map((each) => (
            <li key={each}>
              <code>{clip(cleanText(each), 160)}</code>
            </li>
          ))}
        </ul>
        {inTheWay.length > 20 ? `and ${inTheWay.length - 20} more ` : ""}
        <CopyButton text={inTheWay.join("\n")} label="Copy the list" />
      </Note>
    );
  }
  return (
    <Note tone="green" role="status">
      PostgreSQL {cleanText(look.server_version)}.{" "}
      {missing.length === 0
        ? "All migrations are there."
        : `Nothing is in the way of ${counted(missing.length, "migration", "migrations")}.`}
    </Note>
  );
}

function ByCommand({ plan, onApplied }: { readonly plan: Plan; readonly onApplied: () => void }): ReactNode {
  const client = useConsole();
  const address = plan.address ?? "postgresql://postgres@HOST:5432/postgres";
  const save = async (): Promise<void> => {
    const result = await client.call("setup.sql", {});
    if (result.ok) saveFile(result.value.name, "application/sql", result.value.text);
    else showFailure("The file was not made", result.error);
  };
  return (
    <div className={css.steps}>
      <p>
        With psql: save the file, then run this where it lies. psql asks for the password.{" "}
        <Button onClick={() => void save()}>Save token-governance.sql</Button>
      </p>
      <Command text={`psql "${address}?sslmode=require" -f token-governance.sql`} />
      <p>Or from a checkout of this product:</p>
      <Command
        text={`npm run migrate -- --database-url "${address.replace("@", ":YOUR-PASSWORD@")}?sslmode=no-verify"`}
      />
      <div className={css.buttons}>
        <Button variant="filled" onClick={onApplied}>
          Done: check again
        </Button>
      </div>
    </div>
  );
}

function Command({ text }: { readonly text: string }): ReactNode {
  return (
    <div className={css.command}>
      <pre>{text}</pre>
      <CopyButton text={text} label="Copy the command" />
    </div>
  );
}
