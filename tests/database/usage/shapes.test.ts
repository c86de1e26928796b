/** The SQL reads stored reports of usage by the core's own table of shapes, and counts what the core counts. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { modelNames, readUsage, usagePlaces, usageShapes } from "../../../shared/governance/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { usageExamples } from "../../support/usage-examples.ts";

const urls = inject("postgresUrls");

describe.for([15, 18] as const)("on PostgreSQL %i", (version) => {
  const url = urls[version];
  let client: pg.Client;
  beforeAll(async () => {
    if (!url) return;
    client = new pg.Client({ connectionString: (await createProjectDatabase(url)).url });
    await client.connect();
  });
  afterAll(() => client?.end());

  it.runIf(url)("has the core's table, line for line", async () => {
    const { rows } = await client.query<{ shapes: unknown; places: unknown }>(
      "select governance.usage_shapes() as shapes, governance.usage_places() as places",
    );
    expect(rows[0]?.shapes).toEqual(JSON.parse(JSON.stringify(usageShapes)));
    expect(rows[0]?.places).toEqual(usagePlaces);
    const { rows: bodies } = await client.query<{ body: string }>(
      "select prosrc as body from pg_proc where oid = 'governance.read_usage'::regproc",
    );
    expect(bodies[0]?.body).toContain(`'${modelNames}'`);
  });

  // What came beside a message in other places is not in the usage that is stored with it.
  it.runIf(url).each(usageExamples.filter(([page]) => !/compaction|image tool/.test(page)))(
    "reads %s",
    async (_page, response) => {
      const read = readUsage(response);
      if (!read.ok) throw new Error(read.error.message);
      const { rows } = await client.query<{ input: number; output: number }>(
        "select input_tokens::int as input, output_tokens::int as output from governance.read_usage($1)",
        [JSON.stringify(response)],
      );
      const { input_tokens: input, output_tokens: output } = read.value.counts;
      expect(rows[0]).toEqual({ input, output });
    },
  );
});
