import { type ChildProcess, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type LocalProjectError, startLocalProject } from "../../../local-project/index.ts";
import { PGLITE_VERSION } from "../../../local-project/project.ts";
import { compileQuickly } from "../../support/compile-quickly.ts";
import { createEmptyDatabase } from "../../support/database.ts";
import { startFixtureProject, writeFixtureResources } from "../../support/endpoint.ts";
import { makeSupabaseLike, startPostgres } from "../../support/postgres.ts";
import { sized } from "../../support/size.ts";
import { postgresUrls } from "../../support/project.ts";

const kills = sized(2, 4);
const resourcesDir = writeFixtureResources();
const temporary = mkdtempSync(join(tmpdir(), "endpoint-lifecycle-"));
const children = new Set<ChildProcess>();
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(resourcesDir, { recursive: true });
  rmSync(temporary, { recursive: true });
});

let folders = 0;
const newFolder = (): string => join(temporary, `data-${folders++}`);

interface Started {
  readonly child: ChildProcess;
  readonly url: string;
  readonly serviceRoleKey: string;
  readonly lines: string[];
}

/** The project in a process of its own, over the fixture's functions: what can be killed. */
async function startProcess(dataDir: string): Promise<Started> {
  const script = `
    import { startLocalProject } from ${JSON.stringify(new URL("../../../local-project/index.ts", import.meta.url).href)};
    const project = await startLocalProject(${JSON.stringify({ dataDir, resourcesDir, cacheDir: join(resourcesDir, "cache") })});
    process.on("SIGTERM", () => void project.stop().then(() => process.exit(0)));
    process.stdout.write(JSON.stringify({ url: project.url, serviceRoleKey: project.serviceRoleKey }) + "\\n");`;
  const child = spawn(process.execPath, [compileQuickly, "--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.add(child);
  return ready(child);
}

async function ready(child: ChildProcess): Promise<Started> {
  const lines: string[] = [];
  const line = await new Promise<string>((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      const [first, ...rest] = text.split("\n");
      lines.splice(0, lines.length, ...text.split("\n").filter(Boolean));
      if (rest.length > 0 && first) resolve(first);
    });
    child.once("exit", (code) => reject(new Error(`ended with ${code}`)));
  });
  return { child, lines, ...(JSON.parse(line) as { url: string; serviceRoleKey: string }) };
}

const call = async (
  { url, serviceRoleKey }: { url: string; serviceRoleKey: string },
  name: string,
  body: object = {},
) => {
  const response = await fetch(`${url}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: { apikey: serviceRoleKey, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json().catch(() => null)) as unknown };
};

const exited = (child: ChildProcess): Promise<number | null> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve(child.exitCode)
    : new Promise((resolve) => child.once("exit", resolve));

describe("the data folder", () => {
  const refusal = async (dataDir: string, more: object = {}): Promise<LocalProjectError> =>
    (await startLocalProject({ dataDir, resourcesDir, cacheDir: join(resourcesDir, "cache"), ...more }).then(
      async (project) => {
        await project.stop();
        throw new Error("it started");
      },
      (error: unknown) => error,
    )) as LocalProjectError;

  it(`loses no acknowledged call when the process is killed, ${kills} times over`, async () => {
    const dataDir = newFolder();
    const acknowledged: string[] = [];
    for (let round = 0; round < kills; round++) {
      const project = await startProcess(dataDir);
      const writing = (async () => {
        for (let index = 0; index < 10_000; index++) {
          const p_name = `r${round}-${index}`;
          const { status } = await call(project, "add_person", { p_name });
          if (status === 200) acknowledged.push(p_name);
        }
      })().catch(() => {});
      // Killed in the middle of the calls, after a different number of them each time.
      const wanted = acknowledged.length + 10 + round * 3;
      await expect.poll(() => acknowledged.length, { timeout: 60_000, interval: 3 }).toBeGreaterThan(wanted);
      project.child.kill("SIGKILL");
      await writing;
    }
    const project = await startProcess(dataDir);
    const { body } = await call(project, "people");
    const names = new Set((body as { name: string }[]).map(({ name }) => name));
    expect(acknowledged.filter((name) => !names.has(name))).toEqual([]);
    project.child.kill("SIGTERM");
    expect(await exited(project.child)).toBe(0);
  });

  it("starts over where the first start was killed half-way", async () => {
    const dataDir = newFolder();
    const cacheDir = join(temporary, "empty-cache");
    const script = `
      import { startLocalProject } from ${JSON.stringify(new URL("../../../local-project/index.ts", import.meta.url).href)};
      await startLocalProject(${JSON.stringify({ dataDir, resourcesDir, cacheDir })});`;
    const child = spawn(process.execPath, [compileQuickly, "--input-type=module", "-e", script], {
      stdio: "ignore",
    });
    children.add(child);
    await expect
      .poll(() => existsSync(join(dataDir, "postgres/PG_VERSION")), { timeout: 60_000, interval: 20 })
      .toBe(true);
    child.kill("SIGKILL");
    await exited(child);
    const project = await startFixtureProject({ resourcesDir, dataDir });
    expect(await call(project, "add", { a: 1, b: 2 })).toEqual({ status: 200, body: 3 });
    await project.stop();
  });

  it("lets one process in at a time, and names it to the other", async () => {
    const dataDir = newFolder();
    const holder = await startProcess(dataDir);
    const { message, isExpected } = await refusal(dataDir);
    expect(isExpected).toBe(true);
    expect(message).toBe(
      `${dataDir} is in use by process ${holder.child.pid}: stop it, or name another folder with --data-dir.`,
    );
    expect(await call(holder, "add", { a: 1, b: 1 })).toEqual({ status: 200, body: 2 });
    // The lock dies with its process, however it ends.
    holder.child.kill("SIGKILL");
    await exited(holder.child);
    const next = await startFixtureProject({ resourcesDir, dataDir });
    await next.stop();
  });

  it("lets it in again in the same process after a stop, and not before", async () => {
    const dataDir = newFolder();
    const first = await startFixtureProject({ resourcesDir, dataDir });
    expect((await refusal(dataDir)).message).toContain(`in use by process ${process.pid}`);
    await first.stop();
    await first.stop();
    const second = await startFixtureProject({ resourcesDir, dataDir });
    expect(second).toMatchObject({
      jwtSecret: first.jwtSecret,
      anonKey: first.anonKey,
      serviceRoleKey: first.serviceRoleKey,
    });
    await second.stop();
  });

  it("keeps its secret to its owner, and makes another one for another folder", async () => {
    const [one, two] = [newFolder(), newFolder()];
    const first = await startFixtureProject({ resourcesDir, dataDir: one });
    const second = await startFixtureProject({ resourcesDir, dataDir: two });
    expect(statSync(join(one, "project.json")).mode & 0o777).toBe(0o600);
    expect(first.jwtSecret).not.toBe(second.jwtSecret);
    await Promise.all([first.stop(), second.stop()]);
  });

  it("applies to an older folder what it does not have yet, and keeps its rows", async () => {
    const dataDir = newFolder();
    const before = await startFixtureProject({ resourcesDir, dataDir });
    await call(before, "add_person", { p_name: "Kept" });
    await before.stop();
    const newer = writeFixtureResources();
    writeFileSync(
      join(newer, "migrations/20270101000000_governance_more.sql"),
      "create function public.more() returns int language sql as 'select 1';",
    );
    const after = await startFixtureProject({ resourcesDir: newer, dataDir });
    expect(await call(after, "more")).toEqual({ status: 200, body: 1 });
    expect(await call(after, "people?name=eq.Kept")).toMatchObject({ body: [{ name: "Kept" }] });
    await after.stop();

    const { message, isExpected } = await refusal(dataDir);
    expect(isExpected).toBe(true);
    expect(message).toContain("The database is newer than this program");
    rmSync(newer, { recursive: true });
  });

  it("applies another preset when one is named, and the same one only once", async () => {
    const dataDir = newFolder();
    const first = await startFixtureProject({ resourcesDir, dataDir });
    await first.stop();
    const said = async (preset?: string) => {
      const project = await startFixtureProject({ resourcesDir, dataDir, ...(preset ? { preset } : {}) });
      await project.stop();
      return project.said.filter((sentence) => sentence.includes("preset"));
    };
    expect(await said()).toEqual([]);
    expect(await said("other")).toEqual(["Applied the preset other."]);
    expect(await said("other")).toEqual([]);
    expect((await refusal(dataDir, { preset: "nope" })).message).toBe(
      'There is no preset "nope". Presets: default, other.',
    );
  });

  it.each([
    [
      "holds other files",
      (path: string) => {
        mkdirSync(path);
        writeFileSync(join(path, "letter.txt"), "dear");
      },
      "holds other files and is not a local project's data folder",
    ],
    ["is a file", (path: string) => writeFileSync(path, "x"), "is not a folder"],
    [
      "was made by a newer version",
      (path: string) => {
        mkdirSync(path);
        writeFileSync(join(path, "project.json"), '{"format":2}');
      },
      "was made by a newer version of this program: update the program",
    ],
    [
      "has a damaged record",
      (path: string) => {
        mkdirSync(path);
        writeFileSync(join(path, "project.json"), '{"form');
      },
      "is damaged: it is not JSON",
    ],
    [
      "has lost its database files",
      (path: string) => {
        mkdirSync(path);
        writeFileSync(
          join(path, "project.json"),
          JSON.stringify({
            format: 1,
            jwtSecret: "x".repeat(40),
            createdAtSeconds: 1,
            preset: null,
            ready: true,
          }),
        );
      },
      "is damaged: its database files are missing",
    ],
    [
      "was made by another PostgreSQL",
      (path: string) => {
        mkdirSync(join(path, "postgres"), { recursive: true });
        writeFileSync(join(path, "postgres/PG_VERSION"), "19\n");
        writeFileSync(
          join(path, "project.json"),
          JSON.stringify({
            format: 1,
            jwtSecret: "x".repeat(40),
            createdAtSeconds: 1,
            preset: null,
            ready: true,
          }),
        );
      },
      "was made by PostgreSQL 19, and this is 18: update the program",
    ],
  ])("refuses in one sentence a folder that %s", async (_, make, sentence) => {
    const dataDir = newFolder();
    make(dataDir);
    const { message, isExpected } = await refusal(dataDir);
    expect(message).toContain(sentence);
    expect(message.split("\n")).toHaveLength(1);
    expect(isExpected).toBe(true);
  });

  it("refuses in one sentence a folder it may not write", async () => {
    const { message, isExpected } = await refusal("/proc/here");
    expect(message).toContain("/proc/here cannot be the data folder");
    expect(isExpected).toBe(true);
    if (process.getuid?.() === 0) return;
    const dataDir = newFolder();
    mkdirSync(dataDir);
    chmodSync(dataDir, 0o500);
    expect((await refusal(dataDir)).message).toContain("this user may not write there");
  });

  it("makes the prepared database again where it was damaged", async () => {
    const cacheDir = join(temporary, "cache");
    const first = await startFixtureProject({ resourcesDir, dataDir: newFolder(), cacheDir });
    await first.stop();
    const [snapshot = ""] = readdirSync(cacheDir);
    writeFileSync(join(cacheDir, snapshot), readFileSync(join(cacheDir, snapshot)).subarray(0, 100_000));
    const second = await startFixtureProject({ resourcesDir, dataDir: newFolder(), cacheDir });
    expect(await call(second, "add", { a: 1, b: 2 })).toEqual({ status: 200, body: 3 });
    expect(second.said.join("\n")).toContain("cannot be used and is made again");
    await second.stop();
  });
});

it("knows the version of PGlite that it is built with, so that no prepared database outlives it", () => {
  const { dependencies } = JSON.parse(readFileSync("package.json", "utf8")) as {
    dependencies: Record<string, string>;
  };
  expect(dependencies["@electric-sql/pglite"]).toBe(PGLITE_VERSION);
});

describe("in front of a server", () => {
  it("answers 503 while the server is away, and works again when it is back", async () => {
    const server = await startPostgres();
    const project = await startFixtureProject({ resourcesDir, databaseUrl: await server.createDatabase() });
    expect(await call(project, "add", { a: 1, b: 2 })).toEqual({ status: 200, body: 3 });
    await server.kill();
    const away = await call(project, "add", { a: 1, b: 2 });
    expect(away.status).toBe(503);
    expect(away.body).toMatchObject({
      code: expect.stringMatching(/^(PGRST00[012]|57P0)/) as unknown,
      hint: null,
    });
    await server.restart();
    await expect
      .poll(() => call(project, "add", { a: 1, b: 2 }), { timeout: 60_000 })
      .toEqual({ status: 200, body: 3 });
    await project.stop();
    await server.stop();
  });

  it("serves an owner who is no superuser, and leaves the configuration that is there", async () => {
    const databaseUrl = await makeSupabaseLike(await createEmptyDatabase(postgresUrls()[18]));
    const first = await startFixtureProject({ resourcesDir, databaseUrl });
    expect(first.said).toContain("Applied the preset default.");
    expect(await call(first, "who")).toMatchObject({ body: { role: "service_role" } });
    await first.stop();
    const second = await startFixtureProject({ resourcesDir, databaseUrl });
    expect(second.said).toEqual([]);
    await second.stop();
  });
});

describe("npm run local-project", () => {
  function run(...args: string[]): ChildProcess {
    const child = spawn(process.execPath, [compileQuickly, "cli/local-project.ts", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.add(child);
    return child;
  }

  async function result(child: ChildProcess): Promise<{ code: number | null; out: string; err: string }> {
    let [out, err] = ["", ""];
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    return { code: await exited(child), out, err };
  }

  it("prints its options with --help", async () => {
    const { code, out } = await result(run("--help"));
    expect(code).toBe(0);
    expect(out).toContain("--data-dir DIR");
  });

  it.each([
    [[], "Name a data folder with --data-dir, or a server with --database-url."],
    [["--nonsense"], "Unknown option '--nonsense'"],
    [["--data-dir", "x", "--port", "99999"], '--port takes a whole number from 0 to 65535, not "99999".'],
    [["--data-dir", "x", "--port", "abc"], "--port takes a whole number"],
    [["--database-url", "mysql://x"], "--database-url is not an address like"],
    [
      ["--database-url", "postgres://nobody:s3cret@127.0.0.1:1/x"],
      "Cannot use the server named by --database-url",
    ],
    [["--data-dir", "package.json"], "is not a folder"],
  ])("ends with 2 and a sentence on %j", async (args, sentence) => {
    const { code, out, err } = await result(run(...args));
    expect(code).toBe(2);
    expect(err).toContain(sentence);
    expect(err).not.toContain("s3cret");
    expect(err).not.toMatch(/^\s+at /m);
    expect(out).toBe("");
  });

  it("says that a port is taken", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => taken.once("listening", resolve));
    const { port } = taken.address() as { port: number };
    const error = await startFixtureProject({ resourcesDir, dataDir: newFolder(), port }).catch(
      (e: unknown) => e,
    );
    expect((error as Error).message).toBe(`Port ${port} is in use: name another with --port.`);
    taken.close();
  });
});
