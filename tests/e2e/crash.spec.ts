/** Crashes in the middle of acts, in the built program: none is lost, none is done twice. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import { issueKeys } from "../../local-project/keys.ts";
import { type Desktop, launchDesktop } from "../electron/launch.ts";
import { connectProject, expect, type Project, test } from "./console.ts";

const folder = mkdtempSync(join(tmpdir(), "crash-e2e-"));
const dataDir = join(folder, "data");
const each = 25;
let desktop: Desktop;

test.afterAll(async () => {
  await desktop?.close().catch(() => {});
  rmSync(folder, { recursive: true, force: true });
});

/** Runs a program in the page through the main process: also after a crash, when the page is another one. */
const inPage = (code: string): Promise<unknown> =>
  desktop.app.evaluate(
    async ({ BrowserWindow }, text) =>
      (await BrowserWindow.getAllWindows()[0]?.webContents.executeJavaScript(text)) as unknown,
    code,
  );

/** Begins to flag the users, all at once, and does not wait for it. */
const flagAll = (users: readonly string[]): Promise<unknown> =>
  inPage(`for (const user_id of ${JSON.stringify(users)})
    void consoleBridge.operations["users.flag"]({ command_id: crypto.randomUUID(), user_id, reason: "Under load" }); 1`);

async function makeUsers(project: Project, name: string): Promise<string[]> {
  const users = Array.from({ length: each }, (_, index) => `${name}-${process.pid}-${index}`);
  await Promise.all(users.map((user) => project.client.rpc("upsert_account", { p_user_id: user })));
  return users;
}

interface Audited {
  readonly entries: readonly { readonly action: string; readonly user_id: string | null }[];
}

/** How often each of these users was flagged, by the project's own audit. */
async function timesFlagged(project: Project, users: readonly string[]): Promise<number[]> {
  return Promise.all(
    users.map(async (user) => {
      const { data, error } = await project.client.rpc("console_audit", { p_filter: { user_id: user } });
      if (error) throw new Error(error.message);
      return (data as Audited).entries.filter(({ action }) => action.includes("flag")).length;
    }),
  );
}

test.describe.configure({ mode: "serial" });

test("acts under way when the page crashes are all done, once, and the person is where they were", async ({
  workshop: { project },
}) => {
  desktop = await launchDesktop({ dataDir, args: ["--no-sample-data"] });
  await connectProject(desktop.page, project, "Crash bench");
  const users = await makeUsers(project, "page");
  await desktop.page.evaluate(() => void (location.hash = "#/rules"));
  await flagAll(users);
  await desktop.app.evaluate(({ BrowserWindow }) =>
    BrowserWindow.getAllWindows()[0]?.webContents.forcefullyCrashRenderer(),
  );
  const logs = join(dataDir, "logs");
  await expect
    .poll(() => existsSync(logs) && readdirSync(logs).some((name) => name.startsWith("crash-")))
    .toBe(true);
  // What is asked of a page in the moment that it ends is never answered.
  const soon = <T>(answer: Promise<T>): Promise<T | null> =>
    Promise.race([answer, new Promise<null>((resolve) => setTimeout(resolve, 2_000, null))]);
  await expect
    .poll(() =>
      soon(inPage("location.hash + (document.querySelector('h1')?.textContent ?? '')")).catch(() => ""),
    )
    .toBe("#/rulesRules");
  await expect.poll(() => timesFlagged(project, users)).toEqual(users.map(() => 1));
});

test("acts that were kept when the program is killed are sent by the next start, once", async ({
  workshop: { project },
}) => {
  const users = await makeUsers(project, "main");
  await flagAll(users);
  const ended = new Promise((resolve) => desktop.app.process().once("exit", resolve));
  desktop.app.process().kill("SIGKILL");
  await ended;

  desktop = await launchDesktop({ dataDir, args: ["--no-sample-data"] });
  // Without a keychain the key was the session's; it is given again.
  await inPage(`(async () => {
    const { value } = await consoleBridge.operations["connection.profiles"]({});
    const { profile_id } = value.find(({ name }) => name === "Crash bench");
    await consoleBridge.operations["connection.edit"]({ profile_id, key: ${JSON.stringify(project.serviceRoleKey)} });
    await consoleBridge.operations["connection.select"]({ profile_id });
  })()`);
  const intents = async (): Promise<{ status: string; subject: string }[]> =>
    (await inPage(`consoleBridge.operations["sync.intents"]({}).then((reply) => reply.value)`)) as never;
  const ours = async () => (await intents()).filter(({ subject }) => users.includes(subject));
  await expect.poll(async () => (await ours()).filter(({ status }) => status !== "acknowledged")).toEqual([]);
  const kept = (await ours()).map(({ subject }) => subject);
  const flagged = await timesFlagged(project, users);
  expect(flagged.every((times) => times <= 1)).toBe(true);
  // Each act that reached the program, and no other, is done.
  expect(users.filter((_, index) => flagged[index] === 1).sort()).toEqual([...kept].sort());
  await expect(desktop.page.getByRole("heading", { level: 1, name: "Rules" })).toBeVisible();
});

/** Ends the thread of the main process that runs this file, in the middle of what it does. */
const endThread = (file: string): Promise<void> =>
  desktop.app.evaluate(
    async (_electron, name) =>
      await new Promise<void>((resolve, reject) => {
        const { Session } = process.getBuiltinModule("node:inspector");
        const session = new Session();
        session.connect();
        session.on(
          "NodeWorker.attachedToWorker" as never,
          (({ params }: never) => {
            const { sessionId, workerInfo } = params as { sessionId: string; workerInfo: { url: string } };
            if (!workerInfo.url.includes(name)) return;
            const message = JSON.stringify({
              id: 1,
              method: "Runtime.evaluate",
              params: { expression: "process.exit(7)" },
            });
            session.post("NodeWorker.sendMessageToWorker", { sessionId, message }, () => {});
          }) as never,
        );
        session.on("NodeWorker.detachedFromWorker" as never, () => {
          session.disconnect();
          resolve();
        });
        session.post(
          "NodeWorker.enable",
          { waitForDebuggerOnStart: false },
          (error) => error && reject(error),
        );
      }),
    file,
  );

test("acts under way when the local project's worker ends are all done, once, and what the person was writing stays", async () => {
  await inPage(`consoleBridge.operations["connection.select"]({ profile_id: "local" })`);
  const { page } = desktop;
  const connection = (): Promise<unknown> =>
    inPage(`consoleBridge.operations["connection.state"]({}).then(({ value }) => value)`);
  await expect.poll(connection).toMatchObject({ status: "live", profile: { kind: "local" } });
  const record = JSON.parse(readFileSync(join(dataDir, "local-project/project.json"), "utf8")) as {
    jwtSecret: string;
    createdAtSeconds: number;
  };
  const { serviceRoleKey } = await issueKeys(record.jwtSecret, record.createdAtSeconds);
  const clientNow = async (): Promise<Project> => {
    const { url } = ((await connection()) as { profile: { url: string } }).profile;
    const client = createClient(url, serviceRoleKey, { auth: { persistSession: false } });
    return { url, serviceRoleKey, client };
  };
  const before = await clientNow();
  const users = await makeUsers(before, "worker");
  const [first = ""] = users;
  await page.evaluate((user) => void (location.hash = `#/users/${user}`), first);
  await page.getByRole("button", { name: "Note", exact: true }).click();
  const reason = page.getByRole("textbox", { name: "Reason" });
  await reason.fill("Half a sentence");
  // The product's backend goes on calling; what it asks while nobody answers is its own to repeat.
  let isOver = false;
  const calls = (async () => {
    for (let count = 0; !isOver; count += 1)
      await before.client.rpc("authorize_usage", {
        p_request_id: `load-${count}`,
        p_user_id: first,
        p_model: "gpt-4o-mini",
      });
  })();
  await flagAll(users);
  await endThread("local-project-worker");
  isOver = true;
  await calls;
  const intents = async () =>
    (await inPage(`consoleBridge.operations["sync.intents"]({}).then((reply) => reply.value)`)) as {
      status: string;
      attempts: number;
      subject: string;
    }[];
  const ours = async () => (await intents()).filter(({ subject }) => users.includes(subject));
  await expect
    .poll(async () => (await ours()).filter(({ status }) => status === "acknowledged").length)
    .toBe(each);
  // It ended in the middle of them: one at least was sent again.
  expect((await ours()).some(({ attempts }) => attempts > 1)).toBe(true);
  await expect.poll(connection).toMatchObject({ status: "live", failure: null });
  expect(await timesFlagged(await clientNow(), users)).toEqual(users.map(() => 1));
  await expect(reason).toHaveValue("Half a sentence");
  expect(await page.evaluate(() => location.hash)).toBe(`#/users/${first}`);
  expect(readdirSync(join(dataDir, "logs")).some((name) => name.endsWith("the-local-project.txt"))).toBe(
    true,
  );
});
