import { spawn } from "node:child_process";
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
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, expect, onTestFinished, test } from "vitest";
import type { Profile } from "../../../shared/contract/index.ts";
import { maxFeedTail } from "./feed-tail.ts";
import type { OutboxEntry } from "./intents.ts";
import { openStore, type Store } from "./store.ts";

let folder: string;
const opened: Store[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "console-store-"));
});
afterEach(() => {
  for (const store of opened.splice(0)) store.close();
  rmSync(folder, { recursive: true, force: true });
});

function open(dataDir = folder) {
  const result = openStore(dataDir);
  if (!result.ok) throw new Error(result.error.message);
  opened.push(result.value.store);
  return result.value;
}
const close = (): void => opened.pop()?.close();

function entry(change: Partial<OutboxEntry> = {}): OutboxEntry {
  return {
    command_id: "7f2c8a52-0000-4000-8000-000000000001",
    profile_id: "p",
    kind: "block_user",
    subject: "u1",
    summary: "Block u1",
    status: "pending",
    created_at: "2026-11-22T10:00:00.000Z",
    expires_at: "2026-11-23T10:00:00.000Z",
    attempts: 0,
    failure: null,
    payload: { p_user_id: "u1", p_reason: "spam" },
    base: { version: 1 },
    mine: { is_blocked: true },
    theirs: null,
    ...change,
  };
}
const profile: Profile = {
  profile_id: "p",
  name: "Production",
  url: "https://p.example.com",
  read_url: null,
  kind: "supabase",
  is_production: true,
  is_read_only: false,
  color: null,
  key_storage: "keychain",
  added_at: "2026-11-22T10:00:00.000Z",
};
const event = (event_id: number) => ({ event_id, request_id: `r${event_id}` }) as never;

test("what is written is there after closing and opening again", () => {
  const { store, note } = open();
  expect(note).toBeNull();
  store.setSetting("settings", { theme: "dark" });
  store.putIntent(entry());
  store.putEvents("p", [event(1), event(2)], "cursor-2");
  store.putSnapshot("p", "rules", [{ rule_name: "x" }], "2026-11-22T10:00:00Z");
  close();
  const again = open().store;
  expect(again.getSetting("settings")).toEqual({ theme: "dark" });
  expect(again.listIntents("p")).toEqual([entry()]);
  expect(again.getCursor("p")).toBe("cursor-2");
  expect(again.listFeedTail("p")).toHaveLength(2);
  expect(again.getSnapshot("p", "rules")).toEqual({
    value: [{ rule_name: "x" }],
    at: "2026-11-22T10:00:00Z",
  });
});

test("the file is readable by its owner alone", () => {
  const { path } = open();
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test("a second console on the same folder is refused in one sentence, and the first goes on", () => {
  const { store } = open();
  const second = openStore(folder);
  expect(second).toMatchObject({ ok: false, error: { code: "data_folder_in_use" } });
  store.setSetting("x", 1);
  expect(store.getSetting("x")).toBe(1);
});

test("the lock goes with the process, however it ends", async () => {
  const script = `import { openStore } from ${JSON.stringify(join(import.meta.dirname, "store.ts"))};
    const opened = openStore(${JSON.stringify(folder)});
    opened.value.store.setSetting("from", "child");
    console.log("open"); setInterval(() => opened, 1000); // held, or its lock goes with the collector`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  await new Promise((resolve) => child.stdout.once("data", resolve));
  expect(openStore(folder)).toMatchObject({ ok: false, error: { code: "data_folder_in_use" } });
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await gone;
  expect(open().store.getSetting("from")).toBe("child");
});

test.each([
  ["garbage", (path: string) => writeFileSync(path, Buffer.alloc(50_000, "garbage"))],
  ["cut short to half a page", (path: string) => writeFileSync(path, readFileSync(path).subarray(0, 3_000))],
  [
    "overwritten in the middle",
    (path: string) => {
      const bytes = readFileSync(path);
      bytes.fill(0xff, 4096, Math.min(bytes.length, 40_960));
      writeFileSync(path, bytes);
    },
  ],
])("a store that is %s is kept aside, created again, and reported", (_how, damage) => {
  const { store, path } = open();
  store.setSetting("settings", { theme: "dark" });
  store.putIntent(entry());
  close();
  damage(path);
  const damaged = readFileSync(path);
  const again = open();
  expect(again.note).toContain("damaged");
  again.store.setSetting("works", true);
  expect(again.store.getSetting("works")).toBe(true);
  const kept = readdirSync(folder).find((name) => name.includes("damaged") && name.endsWith(".sqlite"));
  expect(kept).toBeDefined();
  expect(readFileSync(join(folder, kept ?? "")).equals(damaged)).toBe(true);
});

test("intents that can still be read out of a damaged store are not lost", () => {
  const { store, path } = open();
  store.putIntent(entry());
  for (let id = 1; id <= 3_000; id++)
    store.putSnapshot("p", `s${id}`, "x".repeat(200), "2026-11-22T10:00:00Z");
  close();
  const bytes = readFileSync(path);
  // The end of the file holds snapshots; the outbox was made before them.
  bytes.fill(0xff, bytes.length - 8 * 4096);
  writeFileSync(path, bytes);
  const again = open();
  expect(again.note).toContain("damaged");
  expect(again.store.listIntents("p")).toEqual([entry()]);
});

test("a store of a newer console is refused and left as it is", () => {
  const { path } = open();
  close();
  const database = new DatabaseSync(path);
  database.exec("pragma user_version = 999; create table future (x)");
  database.close();
  expect(openStore(folder)).toMatchObject({ ok: false, error: { code: "data_folder_newer" } });
  const after = new DatabaseSync(path);
  expect(after.prepare("pragma user_version").get()).toEqual({ user_version: 999 });
  after.close();
});

test("a folder that cannot be made or written is refused with what to do", () => {
  writeFileSync(join(folder, "file"), "");
  for (const dataDir of [join(folder, "file", "below"), "/proc/token-governance"]) {
    const answer = openStore(dataDir);
    expect(answer).toMatchObject({ ok: false, error: { code: "data_folder_unwritable" } });
    expect(answer.ok ? "" : answer.error.advice).toContain("--data-dir");
  }
});

test.skipIf(process.platform === "win32")("an existing folder that others may read is closed", () => {
  const openFolder = join(folder, "open");
  mkdirSync(openFolder);
  chmodSync(openFolder, 0o755);
  open(openFolder);
  close();
  chmodSync(openFolder, 0o755);
  chmodSync(join(openFolder, "console.sqlite"), 0o644);
  open(openFolder);
  expect(statSync(openFolder).mode & 0o777).toBe(0o700);
  expect(statSync(join(openFolder, "console.sqlite")).mode & 0o777).toBe(0o600);
  // A folder of other things keeps its modes; the store in it is closed.
  const shared = join(folder, "shared");
  mkdirSync(shared);
  chmodSync(shared, 0o755);
  writeFileSync(join(shared, "other.txt"), "");
  open(shared);
  expect(statSync(shared).mode & 0o777).toBe(0o755);
  expect(statSync(join(shared, "console.sqlite")).mode & 0o777).toBe(0o600);
});

test.skipIf(process.getuid?.() === 0)("a read-only folder is refused and nothing is made in it", () => {
  const readOnly = join(folder, "read-only");
  mkdirSync(readOnly, { mode: 0o500 });
  expect(openStore(readOnly)).toMatchObject({ ok: false, error: { code: "data_folder_unwritable" } });
  expect(existsSync(join(readOnly, "console.sqlite"))).toBe(false);
});

test("the feed's tail is bounded: the oldest go", () => {
  const { store } = open();
  store.putEvents(
    "p",
    Array.from({ length: maxFeedTail + 100 }, (_, index) => event(index + 1)),
    "c",
  );
  const tail = store.listFeedTail("p");
  expect(tail).toHaveLength(maxFeedTail);
  expect(tail[0]?.event_id).toBe(101);
});

test("what was under way while a profile was removed writes nothing of it again", () => {
  const { store, path } = open();
  for (const profile_id of ["p", "q"]) store.putProfile({ ...profile, profile_id });
  store.removeProfile("p");
  for (const profile_id of ["p", "q"]) {
    store.putIntent(entry({ profile_id, command_id: `c-${profile_id}` }));
    store.putEvents(profile_id, [event(1)], "c");
    store.putSnapshot(profile_id, "rules", [], "2026-11-22T10:00:00Z");
    store.putRun(profile_id, { run: { run_id: `r-${profile_id}`, started_at: "" } as never, report: null });
    store.putDifferences(`r-${profile_id}`, 0, [{ class: "c", difference: {} }]);
    store.setSetting(`doubts.${profile_id}`, []);
  }
  close();
  const file = new DatabaseSync(path, { readOnly: true });
  for (const table of ["outbox", "feed_tail", "cursors", "snapshots", "runs"])
    expect([table, file.prepare(`select profile_id from ${table}`).all()]).toEqual([
      table,
      [{ profile_id: "q" }],
    ]);
  expect(file.prepare("select run_id from differences").all()).toEqual([{ run_id: "r-q" }]);
  expect(file.prepare("select key from settings where key like 'doubts.%'").all()).toEqual([
    { key: "doubts.q" },
  ]);
  file.close();
});

test("removing a profile removes what was read through it, and nothing of others", () => {
  const { store } = open();
  for (const profile_id of ["p", "q"]) {
    store.putIntent(entry({ profile_id, command_id: `c-${profile_id}` }));
    store.putEvents(profile_id, [event(1)], "c");
    store.putSnapshot(profile_id, "rules", [], "2026-11-22T10:00:00Z");
  }
  store.removeProfile("p");
  expect(store.listIntents("p")).toEqual([]);
  expect(store.getCursor("p")).toBeNull();
  expect(store.getSnapshot("p", "rules")).toBeNull();
  expect(store.listIntents("q")).toHaveLength(1);
  expect(store.getCursor("q")).toBe("c");
});
