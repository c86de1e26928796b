/**
 * The core decides as PGlite does (core-comparison.ts says how). A file of its own: PGlite works in this very process,
 * and would keep a server's answers waiting.
 */
import { readFileSync } from "node:fs";
import { PGlite } from "@electric-sql/pglite";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import { pgcrypto } from "@electric-sql/pglite/contrib/pgcrypto";
import { it } from "vitest";
import { migrate, type SqlConnection } from "../../../local-project/migrations.ts";
import { expectEqual } from "../../support/models/core-comparison.ts";
import { sized } from "../../support/size.ts";

const cases = sized(250, 10_000);

it(`PGlite folds every character, and decides ${cases} generated histories, as the core does`, async () => {
  const db = await PGlite.create({ extensions: { pg_trgm, pgcrypto } });
  const connection = db as unknown as SqlConnection;
  try {
    await db.exec(readFileSync(new URL("../../../local-project/bootstrap.sql", import.meta.url), "utf8"));
    await migrate(connection, { role: "project_owner" });
    await expectEqual(connection, "PGlite", cases);
  } finally {
    await db.close();
  }
}, 1_800_000);
