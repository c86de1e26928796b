/** pg_dump and pg_restore, as an operator runs them (docs/guides/backup.md). */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { createEmptyDatabase } from "./database.ts";
import { makeSupabaseLike } from "./postgres.ts";
import { type Project, projectAt } from "./project.ts";

const run = promisify(execFile);

/** The folder of the client programs that can dump this version: theirs, or a newer one's. Null where there is none. */
export function findDumpPrograms(version: number): string | null {
  const root = "/usr/lib/postgresql";
  const versions = existsSync(root)
    ? readdirSync(root)
        .map(Number)
        .filter((each) => each >= version)
    : [];
  return (
    versions
      .toSorted((a, b) => a - b)
      .map((each) => join(root, String(each), "bin"))
      .find((folder) => existsSync(join(folder, "pg_dump")) && existsSync(join(folder, "pg_restore"))) ?? null
  );
}

const schemas = ["governance", "public", "supabase_migrations"];

export async function dump(programs: string, url: string, file: string): Promise<void> {
  await run(join(programs, "pg_dump"), [
    "--format=custom",
    "--no-owner",
    ...schemas.map((schema) => `--schema=${schema}`),
    `--file=${file}`,
    `--dbname=${url}`,
  ]);
}

/** Into a new project on this server; every statement must succeed. */
export async function restore(programs: string, superuserUrl: string, file: string): Promise<Project> {
  const url = await createEmptyDatabase(superuserUrl);
  const ownerUrl = await makeSupabaseLike(url);
  // A project has schema public already.
  const { stdout } = await run(join(programs, "pg_restore"), ["--list", file]);
  const list = `${file}.list`;
  writeFileSync(
    list,
    stdout
      .split("\n")
      .filter((line) => !/ SCHEMA - public | COMMENT - SCHEMA public | ACL - SCHEMA public /.test(line))
      .join("\n"),
  );
  await run(join(programs, "pg_restore"), [
    "--no-owner",
    "--exit-on-error",
    `--use-list=${list}`,
    `--dbname=${ownerUrl}`,
    file,
  ]);
  return projectAt(url, { ownerUrl });
}
