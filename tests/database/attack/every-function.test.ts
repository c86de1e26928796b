/**
 * Whatever is handed to any function of ours: an answer, or a refusal that ERROR_CODES.md states; never a crash, and
 * nothing half done. `TESTS` sets how many (tests/support/size.ts).
 */
import { sized } from "../../support/size.ts";
import { readFileSync } from "node:fs";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { checkoutSession, event } from "../../support/stripe/events.ts";
import { expectSoundBooks, installedVersions, openProject, type Project } from "../../support/project.ts";
import {
  type Call,
  defaultPreset,
  fingerprint,
  heldCalls,
  hostileCalls,
  installAttack,
  keptRun,
  type Outcome,
  publicFunctions,
  tryCalls,
} from "../../support/models/hostile-inputs.ts";

/** The server that we ship gets most; the other one enough to notice where it differs. */
const inputsEach = (version: 15 | 18): number => sized(version === 18 ? 300 : 150, 10_000);
const batchSize = 2_500;

const errorCodes = readFileSync(new URL("../../../supabase/ERROR_CODES.md", import.meta.url), "utf8");
const stated = new Set(
  errorCodes.split("\n").flatMap((line) => {
    const [, code, hints] = /^\| (PT\d{3}) \| ([^|]+) \|/.exec(line) ?? [];
    return [...(hints ?? "").matchAll(/`(\w+)`/g)].map(([, hint]) => `${code} ${hint}`);
  }),
);

/** Ours and written down; or PostgreSQL's own about an argument that no function has seen yet. */
function isStated({ state, hint }: Outcome): boolean {
  return state === "answered" || stated.has(`${state} ${hint}`) || state.startsWith("22");
}

/** Accounts, calls in every state, a payment and an existing chat table: what hostile ids can hit. */
async function furnish(project: Project): Promise<void> {
  for (const user of ["user-1", "user-2", "user-3"]) await project.call("upsert_account", user, "pro");
  for (const id of [...heldCalls, "call-settled", "call-released", "call-aside"])
    await project.call("authorize_usage", id, "user-1", "gpt-4o", 100, null, "c-1", "chat");
  await project.call("settle_usage", "call-settled", 40, 20);
  await project.call("release_usage", "call-released");
  await project.call("settle_usage", "call-aside", 9_000_000, 9_000_000);
  await project.call("authorize_usage", "call-blocked", "user-2", "gpt-4o", 9_000_000);
  const bought = {
    name: "q",
    userId: "user-4",
    packId: "tokens-500k",
    tokens: 500_000,
    amountMinor: 500,
    currency: "usd",
    created: 1_790_000_000,
  };
  await project.call(
    "process_stripe_event",
    event("checkout.session.completed", checkoutSession(bought), { id: "evt_quarantined" }),
  );
  const { report, differences } = keptRun;
  await project.call("console_keep_reconciliation", "run-1", "ann", report, JSON.stringify(differences));
  await project.call("console_case_action", "propose-1", ["d-1"], "propose", "ann", "paid", {});
  await project.sql.query(`
    create table public.chat_messages (id bigint primary key, user_id text, created_at timestamptz, metadata jsonb);
    insert into public.chat_messages select n, 'user-' || n % 3, now() - n * interval '1 hour', '{"tokensUsed": 5}' from generate_series(1, 50) n;
    alter table public.chat_messages owner to project_owner`);
}

const shown = ({ sql, arguments: given }: Call): string =>
  `${sql} with ${JSON.stringify(given.map((one) => (typeof one === "string" ? one.slice(0, 400) : one)))}`;

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  const count = inputsEach(version);
  it(`${count} generated inputs to each function are answered or refused in stated words, and a refusal changes nothing`, async () => {
    const project = await openProject(version);
    await furnish(project);
    const client = new pg.Client({ connectionString: project.url });
    await client.connect();
    // A call that never ends is a fault too.
    await client.query("set statement_timeout = '120s'");
    await client.query('set request.jwt.claims = \'{"sub": "user-1"}\'');
    await installAttack(client);
    const seen = new Map<string, number>();
    const faults: string[] = [];
    const usual = defaultPreset();
    for (const called of await publicFunctions(client)) {
      // Few parameters have few values: what was generated twice is tried once.
      const calls = [
        ...new Map(
          [...hostileCalls(called, count, version)].map((call) => [JSON.stringify(call), call]),
        ).values(),
      ];
      for (let at = 0; at < calls.length; at += batchSize) {
        const batch = calls.slice(at, at + batchSize);
        const before = await fingerprint(client);
        const outcomes = await tryCalls(client, batch, false);
        const after = await fingerprint(client);
        expect([called.name, at, after]).toEqual([called.name, at, before]);
        expect(outcomes.length).toBe(batch.length);
        const answered: Call[] = [];
        for (const [index, outcome] of outcomes.entries()) {
          const call = batch[index] as Call;
          const kind = outcome.state.startsWith("PT") ? `${outcome.state} ${outcome.hint}` : outcome.state;
          seen.set(kind, (seen.get(kind) ?? 0) + 1);
          if (outcome.state === "answered") answered.push(call);
          if (!isStated(outcome)) faults.push(`${kind} ${outcome.message}: ${shown(call)}`);
        }
        expect(faults).toEqual([]);
        // Some of what was answered takes place, so that later calls meet what hostile ones have left.
        await tryCalls(client, answered.slice(0, 10), true);
      }
      // Whatever rules and plans that made: the next function is attacked under the usual ones.
      await project.call("apply_preset", usual);
    }
    await client.end();
    expect([...seen.keys()]).toEqual(
      expect.arrayContaining([
        "answered",
        "PT400 invalid_argument",
        "PT402 insufficient_tokens",
        "PT404 unknown_user",
        "PT404 unknown_request",
        "PT409 idempotency_conflict",
        "PT422 invalid_rule",
        "PT422 invalid_preset",
        "22P02",
        "22P05",
      ]),
    );
    await expectSoundBooks(project);
    await project.close();
  }, 1_200_000);
});
