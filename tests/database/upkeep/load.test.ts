/**
 * Everything at once: calls, sign-ins, blocks, Stripe events, presets and upkeep without a pause, on few accounts. No
 * deadlock and no error but stated ones. LOAD_SECONDS=60 for the whole load.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { defaultResourcesDir, readPreset } from "../../../local-project/migrations.ts";
import { dice } from "../../support/dice.ts";
import { expectSoundBooks, installedVersions, openProject, type Project } from "../../support/project.ts";
import { charge, checkoutSession, event, type Purchase } from "../../support/stripe/events.ts";

const seconds = Number(process.env["LOAD_SECONDS"] ?? 10);
const connections = 16;
const users = 40;

const errorCodes = readFileSync(new URL("../../../supabase/ERROR_CODES.md", import.meta.url), "utf8");

type Call = readonly [name: string, ...parameters: readonly unknown[]];

/** The calls of one worker, in turn. */
function* traffic(worker: number): Generator<Call> {
  const random = dice(worker + 1);
  const someone = (): string => `user-${Math.floor(random() * users)}`;
  const preset = JSON.stringify(readPreset("default", defaultResourcesDir));
  for (let n = 0; ; n += 1) {
    const [chance, id, user] = [random(), `${worker}-${n}`, someone()];
    if (chance < 0.5) {
      yield ["authorize_usage", id, user, "gpt-4o-mini", 1 + Math.floor(random() * 900), `message ${n}`];
      if (random() < 0.9) yield ["settle_usage", id, Math.floor(random() * 900), Math.floor(random() * 300)];
      else yield ["release_usage", id, "gone"];
    } else if (chance < 0.7)
      yield ["upsert_account", user, random() < 0.5 ? "starter" : "pro", null, `Name ${n}`, null];
    else if (chance < 0.78) yield ["block_user", `b-${id}`, user, "load", null, "ann"];
    else if (chance < 0.9) yield ["unblock_user", `u-${id}`, user, "load", "ann"];
    else if (chance < 0.92) yield ["flag_user", `f-${id}`, user, "load", "ann"];
    else if (chance < 0.97) {
      const bought: Purchase = {
        name: `l${worker}x${n}`,
        userId: user,
        packId: "tokens-500k",
        tokens: 500_000,
        amountMinor: 500,
        currency: "usd",
        created: Math.floor(Date.now() / 1000),
      };
      yield ["process_stripe_event", event("checkout.session.completed", checkoutSession(bought))];
      yield ["process_stripe_event", event("charge.succeeded", charge(bought))];
      if (random() < 0.5)
        yield ["process_stripe_event", event("charge.refunded", charge(bought, { amount_refunded: 250 }))];
    } else if (chance < 0.985) yield ["console_search_accounts", "user"];
    else if (chance < 0.995) yield ["console_overview"];
    else yield ["apply_preset", preset];
  }
}

async function runLoad(project: Project, forMs: number) {
  const until = Date.now() + forMs;
  const slowest = new Map<string, number>();
  const errors = new Map<string, number>();
  let calls = 0;
  let rounds = 0;
  const timed = async (call: Call): Promise<void> => {
    const started = performance.now();
    const [name, ...parameters] = call;
    try {
      const answer = await project.call(name, ...parameters);
      if (typeof answer["hint"] === "string" && !errorCodes.includes(`\`${answer["hint"]}\``))
        throw new Error(`${name} refused with a hint that is not stated: ${answer["hint"]}`);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      const key = `${name}: ${code ?? ""} ${message}`;
      errors.set(key, (errors.get(key) ?? 0) + 1);
    }
    calls += 1;
    slowest.set(name, Math.max(slowest.get(name) ?? 0, performance.now() - started));
  };
  const upkeep = async (): Promise<void> => {
    while (Date.now() < until) {
      await timed(["run_maintenance"]);
      rounds += 1;
    }
  };
  await Promise.all([
    upkeep(),
    ...Array.from({ length: connections - 1 }, async (_, worker) => {
      for (const call of traffic(worker)) {
        if (Date.now() > until) return;
        await timed(call);
      }
    }),
  ]);
  return { calls, rounds, errors: Object.fromEntries(errors), slowest };
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it(
    `${seconds} s of everything at ${connections} connections: no error but stated ones, and sound books`,
    async () => {
      const project = await openProject(version, { connections });
      for (let user = 0; user < users; user += 1) await project.call("upsert_account", `user-${user}`);
      const { calls, rounds, errors, slowest } = await runLoad(project, seconds * 1_000);
      const slow = [...slowest]
        .sort((a, b) => b[1] - a[1])
        .map(([name, ms]) => `${name} ${Math.round(ms)} ms`);
      console.log(
        `PostgreSQL ${version}: ${calls} calls beside ${rounds} rounds of upkeep in ${seconds} s; slowest: ${slow.join(", ")}`,
      );
      expect(errors).toEqual({});
      expect(calls).toBeGreaterThan(500);
      expect(rounds).toBeGreaterThan(5);
      await expectSoundBooks(project);
      await project.close();
    },
    seconds * 1_000 + 200_000,
  );
});
