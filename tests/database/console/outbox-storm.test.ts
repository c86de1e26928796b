/**
 * A thousand acts made offline come back over a line that loses answers, through a console that dies again and again,
 * while colleagues changed some of the same records: none is lost, none is done twice, nothing is overwritten.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { z } from "zod";
import type { Backend } from "../../../electron/main/backend/backend.ts";
import { createOutbox, type Outbox } from "../../../electron/main/console/sync/outbox.ts";
import { openStore } from "../../../electron/main/store/store.ts";
import type { Failure, Seen } from "../../../shared/contract/index.ts";
import { fail, ok } from "../../../shared/governance/result.ts";
import { dice } from "../../support/dice.ts";
import { openProject, type Project } from "../../support/project.ts";
import { seeded, sized } from "../../support/size.ts";

const intents = sized(200, 1000);
const inConflict = intents / 10;
const crashes = sized(8, 20);
const profileId = "storm";

let project: Project;
let folder: string;
const random = dice(seeded(12));

beforeAll(async () => {
  project = await openProject(18);
  folder = mkdtempSync(join(tmpdir(), "governance-storm-"));
});
afterAll(async () => {
  await project?.close();
  rmSync(folder, { recursive: true, force: true });
});

const lost: Failure = { code: "offline", message: "The answer was lost.", advice: null, details: null };

/** The project over a line that loses three of ten answers: what was asked is done, and nobody hears of it. */
const backend = {
  async rpc<S extends z.ZodType>(name: string, parameters: Record<string, unknown>, schema: S) {
    let failure: Failure | null = null;
    let answer: unknown = null;
    try {
      answer = await project.rpc(name, parameters);
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      failure = {
        code: error.hint ?? "",
        message: error.message,
        advice: null,
        details: error.detail ?? null,
      };
    }
    if (random() < 0.3) return fail(lost);
    return failure ? fail(failure) : ok(schema.parse(answer));
  },
} as unknown as Backend;

/** A console's outbox on the folder, as it is after a start. */
function start(): { readonly outbox: Outbox; readonly die: () => void } {
  const opened = openStore(folder);
  if (!opened.ok) throw new Error(opened.error.message);
  const { store } = opened.value;
  const outbox = createOutbox({ store, now: () => new Date(), onChange: () => {}, onConflict: () => {} });
  return { outbox, die: () => store.close() };
}

const account = async (user: string): Promise<Seen> =>
  (await project.rpc<{ account: Seen }>("console_get_account", { p_user_id: user })).account;

it(`${intents} acts made offline, ${inConflict} of them over a colleague's, ${crashes} crashes, three of ten answers lost`, async () => {
  const users = Array.from({ length: inConflict }, (_, n) => `storm-${n}`);
  for (const user of users) await project.rpc("upsert_account", { p_user_id: user });
  const seen = new Map(await Promise.all(users.map(async (user) => [user, await account(user)] as const)));

  let console_ = start();
  const made: string[] = [];
  const submit = async (wanted: Parameters<Outbox["submit"]>[2]): Promise<void> => {
    const submitted = await console_.outbox.submit(profileId, null, wanted);
    expect(submitted).toMatchObject({ ok: true, value: { intent: { status: "pending" } } });
    made.push(wanted.command_id);
  };
  for (let n = 0; n < intents; n += 1) {
    const user = users[n % inConflict] ?? "";
    const base = seen.get(user) ?? {};
    const command_id = randomUUID();
    const shared = { command_id, subject: user, summary: `act ${n}` };
    if (n < inConflict)
      await submit({
        ...shared,
        kind: "block_user",
        payload: {
          p_user_id: user,
          p_operator: "ann",
          p_expected_version: base["version"],
          p_reason: "Mine",
          p_until: null,
        },
        base,
        mine: { ...base, is_blocked: true, block_reason: "Mine" },
      });
    else
      await submit({
        ...shared,
        kind: "note_user",
        payload: { p_user_id: user, p_operator: "ann", p_act: { kind: "note" }, p_reason: `note ${n}` },
        base,
        mine: base,
      });
  }
  // Meanwhile a colleague blocks the same users for a reason of his own.
  for (const user of users)
    await project.rpc("block_user", {
      p_command_id: randomUUID(),
      p_user_id: user,
      p_reason: "Theirs",
      p_until: null,
      p_operator: "bob",
    });

  const pending = (): number =>
    console_.outbox.list(profileId).filter(({ status }) => status === "pending").length;
  let died = 0;
  for (let rounds = 0; pending() > 0; rounds += 1) {
    expect(rounds).toBeLessThan(intents * 20);
    const sending = console_.outbox.sendPending(profileId, backend);
    if (died < crashes && random() < 0.05) {
      // The process is gone while an act is under way; what it sends may still arrive.
      await new Promise((resolve) => setTimeout(resolve, Math.floor(random() * 15)));
      console_.die();
      died += 1;
      await sending.catch(() => {});
      console_ = start();
    } else await sending;
  }
  while (died < crashes) {
    console_.die();
    died += 1;
    console_ = start();
  }

  const kept = new Map(console_.outbox.list(profileId).map((each) => [each.command_id, each]));
  for (const [n, id] of made.entries()) {
    const intent = kept.get(id);
    if (n < inConflict)
      expect(intent).toMatchObject({ status: "conflict", theirs: { block_reason: "Theirs" } });
    else expect(intent?.status ?? "acknowledged").toBe("acknowledged");
  }
  const { rows: notes } = await project.sql.query<{ reason: string; times: number }>(
    "select reason, count(*)::int as times from governance.audit_log where reason like 'note %' group by 1",
  );
  expect(notes).toHaveLength(intents - inConflict);
  expect(notes.filter(({ times }) => times !== 1)).toEqual([]);
  for (const user of users)
    expect(await account(user)).toMatchObject({ block_reason: "Theirs", blocked_by: "bob" });
  console_.die();
}, 600_000);
