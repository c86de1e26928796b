/** The SQL reads stored reports of usage by the core's own table of shapes, and counts what the core counts. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { modelNames, readUsage, usagePlaces, usageShapes } from "../../../shared/governance/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { strangeReports, usageReports } from "../../support/models/usage-reports.ts";
import { seeded, sized } from "../../support/size.ts";
import { usageExamples } from "../../support/usage-examples.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();

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

  it.runIf(url)("reads each call as it was, from every convention's report", async () => {
    const reports = usageReports(seeded(11), sized(400, 50_000)).filter(({ isLive }) => !isLive);
    const { rows } = await client.query<{ input: string; output: string }>(
      `select u.input_tokens as input, u.output_tokens as output
       from jsonb_array_elements($1::jsonb) with ordinality r(report, at), governance.read_usage(r.report) u
       order by r.at`,
      [JSON.stringify(reports.map(({ response }) => response))],
    );
    const read = rows.map(({ input, output }, index) => [
      reports[index]?.convention,
      Number(input),
      Number(output),
    ]);
    expect(read).toEqual(reports.map(({ convention, input, output }) => [convention, input, output]));
  });

  it.runIf(url)("reads what the core reads of reports whose parts disagree", async () => {
    const reports = strangeReports(seeded(13), sized(600, 50_000)).flatMap(({ response }) => {
      const read = readUsage(response);
      if (!read.ok || read.value.counts.input_tokens + read.value.counts.output_tokens === 0) return [];
      return [{ response, counts: read.value.counts }];
    });
    const { rows } = await client.query<{ input: string; output: string }>(
      `select u.input_tokens as input, u.output_tokens as output
       from jsonb_array_elements($1::jsonb) with ordinality r(report, at), governance.read_usage(r.report) u
       order by r.at`,
      [JSON.stringify(reports.map(({ response }) => response))],
    );
    const told = (index: number) => JSON.stringify(reports[index]?.response);
    const read = rows.map(({ input, output }, index) => [told(index), Number(input), Number(output)]);
    expect(read).toEqual(
      reports.map(({ counts }, index) => [told(index), counts.input_tokens, counts.output_tokens]),
    );
    expect(reports.length).toBeGreaterThan(50);
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
