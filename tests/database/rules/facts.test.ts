/** The facts that rules read are one list: the core's table, the SQL's row and docs/RULES.md name the same, of the same types. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { expect, it } from "vitest";
import { factNames, facts } from "../../../shared/governance/rules/facts.ts";
import { repository } from "../../support/repository.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const ofCore = Object.fromEntries(factNames.map((fact) => [fact, facts[fact].type]));

it("the row of facts in SQL has each fact of the core, and a rule reads it as the same type", async () => {
  const client = new pg.Client({
    connectionString: (await createProjectDatabase(postgresUrls()[18] as string)).url,
  });
  await client.connect();
  try {
    const { rows } = await client.query<{ fact: string; type: string }>(
      `select name as fact, governance.fact_type(name) as type
       from (select attname::text as name from pg_attribute
         where attrelid = 'governance.facts'::regclass and attnum > 0 and not attisdropped
         union all select 'message') f`,
    );
    expect(Object.fromEntries(rows.map(({ fact, type }) => [fact, type]))).toEqual(ofCore);
  } finally {
    await client.end();
  }
});

it("docs/RULES.md says of each fact what it is", () => {
  const [, section = ""] = readFileSync(join(repository, "docs/RULES.md"), "utf8").split("\n## Facts\n");
  const rows = (section.split("\n## ")[0] ?? "").matchAll(/^\| ([a-z_, ]+) \| (number|text|boolean) \|/gm);
  const documented = [...rows].flatMap(([, names = "", type]) =>
    names.split(", ").map((name) => [name, type] as const),
  );
  expect(Object.fromEntries(documented)).toEqual(ofCore);
});
