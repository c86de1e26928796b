/** Messages that once held a core for minutes: folding them takes little, and a timeout ends what takes long. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readPreset } from "../../../local-project/migrations.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { usedProcessor } from "../../support/processor.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();

describe.for([15, 18] as const)("on PostgreSQL %i", (version) => {
  const url = urls[version];
  let client: pg.Client;
  let server: number;
  beforeAll(async () => {
    if (!url) return;
    client = new pg.Client({ connectionString: (await createProjectDatabase(url)).url });
    await client.connect();
    server = (await client.query<{ pid: number }>("select pg_backend_pid() as pid")).rows[0]?.pid as number;
    await client.query("select apply_preset($1)", [JSON.stringify(readPreset("default"))]);
    await client.query("select upsert_account('writer')");
  });
  afterAll(() => client?.end());

  let calls = 0;
  /** Milliseconds of the server's processor that a call with the message took: not of the clock, which others slow. */
  async function authorize(message: string): Promise<number> {
    const started = usedProcessor(server);
    await client.query("select authorize_usage($1, 'writer', 'm', 10, $2)", [`r${calls++}`, message]);
    return usedProcessor(server) - started;
  }

  it.runIf(url).each<[string, string]>([
    ["combining marks out of order", `a${"\u0301\u0316".repeat(1_000_000)}`],
    ["a ligature of eighteen letters", "ﷺ".repeat(1_390_000)],
    ["the last of the letters that fold", "Ӿ".repeat(2_000_000)],
    ["Chinese", "我们去赌博吧，".repeat(190_000)],
    ["Thai", "การพนัน".repeat(190_000)],
    ["separators", `${",".repeat(4_000_000)}我`],
    ["white space beyond ASCII", "a\u00a0".repeat(1_300_000)],
  ])(
    "costs for 4 MB of %s at most what its size does",
    async (_, message) => {
      const small = message.slice(0, message.length / 8);
      await authorize(small);
      const eighth = await authorize(small);
      const whole = await authorize(message);
      // Eight times as much, twice that for what else the machine does.
      expect(whole).toBeLessThan(500 + 16 * eighth);
    },
    60_000,
  );

  it.runIf(url)("a message that takes long is ended by the statement timeout", async () => {
    await client.query("set statement_timeout = '300ms'");
    const started = usedProcessor(server);
    await expect(authorize("我a".repeat(1_000_000))).rejects.toMatchObject({ code: "57014" });
    expect(usedProcessor(server) - started).toBeLessThan(2_000);
    await client.query("reset statement_timeout");
    expect(await authorize("hello")).toBeLessThan(1_000);
  });
});
