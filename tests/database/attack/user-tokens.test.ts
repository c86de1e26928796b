/** A token that names nobody is refused, whatever it holds. (Hostile arguments: enforcement-hostile.test.ts.) */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openProject, type Project } from "../../support/project.ts";

describe("what users call about themselves", () => {
  let desk: Project;
  let client: pg.Client;
  beforeAll(async () => {
    desk = await openProject(18);
    client = new pg.Client({ connectionString: desk.ownerUrl });
    await client.connect();
  });
  afterAll(async () => {
    await client.end();
    await desk.close();
  });

  it("refuses a token that names nobody, whatever it holds", async () => {
    for (const claims of [
      "",
      "{",
      "[]",
      "7",
      "null",
      "{}",
      '{"sub": null}',
      '{"sub": ""}',
      '{"sub": {}}',
      '{"sub": "   "}',
      `{"sub": "${"x".repeat(300)}"}`,
    ]) {
      await client.query("begin");
      await client.query("select set_config('request.jwt.claims', $1, true)", [claims]);
      const code = await client.query("select public.my_token_balance()").then(
        () => "answered",
        (error: pg.DatabaseError) => error.code,
      );
      await client.query("rollback");
      expect([claims, code]).toEqual([claims, "PT401"]);
    }
  });
});
