/** Crashes in the middle of acts, in the built program: none is lost, none is done twice. */
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
  for (const user of users) await project.client.rpc("upsert_account", { p_user_id: user });
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
  test.setTimeout(120_000);
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
  test.setTimeout(120_000);
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
