/** The core decides as a real PostgreSQL does (core-comparison.ts says how): generated cases, more on 18 than on 15. */
import pg from "pg";
import { describe, it } from "vitest";
import { pgConnection } from "../../../local-project/migrations.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { expectEqual } from "../../support/models/core-comparison.ts";
import { sized } from "../../support/size.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();

describe.for<[string, number, string | null]>([
  ["PostgreSQL 18", sized(600, 10_000), urls[18]],
  ["PostgreSQL 15", sized(100, 10_000), urls[15]],
])("on %s", ([name, cases, url]) => {
  it.runIf(url)(
    `folds every character, and decides ${cases} generated histories, as the core does`,
    async () => {
      const client = new pg.Client({ connectionString: (await createProjectDatabase(url as string)).url });
      await client.connect();
      try {
        await expectEqual(pgConnection(client), name, cases);
      } finally {
        await client.end();
      }
    },
    1_200_000,
  );
});
