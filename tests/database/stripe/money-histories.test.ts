/**
 * Invoices and payments against plain arithmetic: whatever an invoice is made of, however it was paid, and in whatever
 * order Stripe tells it, the tokens are those that were paid for and kept, and the money is what was paid for them.
 * `TESTS` and `SEED` give others (tests/support/size.ts).
 */
import { seeded, sized } from "../../support/size.ts";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { dice, shuffle } from "../../support/dice.ts";
import { invoiceCase, packCase, type MoneyCase } from "../../support/models/invoice-model.ts";
import { subscriptionPreset } from "../../support/models/subscription-model.ts";
import { expectSoundBooks, installedVersions, openProject, type Project } from "../../support/project.ts";

const historiesOn = (version: 15 | 18): number => sized(version === 18 ? 60 : 20, 10_000);
const seed = seeded(20261128);
const created = Date.parse("2027-01-04T09:59:00Z") / 1000;
const pack = { packId: "half-million", tokens: 500_000, price: 1_000 };

describe.each(installedVersions())("invoices and payments on PostgreSQL %i", (version) => {
  const histories = historiesOn(version);
  let project: Project;
  beforeAll(async () => {
    project = await openProject(version);
    await project.rpc("apply_preset", {
      p_preset: {
        ...subscriptionPreset,
        packs: [{ pack_id: pack.packId, tokens: pack.tokens, price_minor: pack.price, currency: "usd" }],
      },
    });
    await project.setClock("2027-01-04T10:00:00Z", true);
  });
  afterAll(() => project.close());

  it(
    `are booked as they were paid (${histories} histories, seed ${seed})`,
    async () => {
      const random = dice(seed);
      for (let done = 0; done < histories; done += 200) {
        const cases = new Map<string, MoneyCase>();
        for (let n = done; n < Math.min(done + 200, histories); n++) {
          const userId = `m${n}`;
          cases.set(
            userId,
            random() < 0.3
              ? packCase(userId, userId, pack, random, created)
              : invoiceCase(userId, userId, random, created),
          );
        }
        await project.sql.query("select upsert_account(u) from unnest($1::text[]) u", [[...cases.keys()]]);
        const events = [...cases.values()].flatMap((one) => one.events);
        const delivered = shuffle([...events, ...events.filter(() => random() < 0.2)], random);
        const { rows: answers } = await project.sql.query<{ status: string; id: string }>(
          `select process_stripe_event(e) ->> 'status' as status, e ->> 'id' as id
         from jsonb_array_elements($1) e`,
          [JSON.stringify(delivered)],
        );
        for (const { status, id } of answers) expect(["processed", "duplicate"], id).toContain(status);
        for (const found of await books([...cases.keys()])) {
          const { expected, words } = cases.get(found.user_id) as MoneyCase;
          const story = `${found.user_id}: ${words}`;
          expect(found.tokens, story).toBe(expected.tokens);
          expect(Math.abs(found.booked - expected.booked), `${story}: booked`).toBeLessThanOrEqual(
            expected.tolerance,
          );
          expect(Math.abs(found.collected - expected.collected), `${story}: collected`).toBeLessThanOrEqual(
            expected.tolerance,
          );
        }
      }
      await expectSoundBooks(project);
      expect((await project.call("verify_purchases"))["problems"]).toEqual([]);
    },
    120_000 + 400 * histories,
  );

  interface Books {
    readonly user_id: string;
    /** What is there, less what is owed. */
    readonly tokens: number;
    readonly booked: number;
    readonly collected: number;
  }
  async function books(userIds: readonly string[]): Promise<Books[]> {
    const { rows } = await project.sql.query<Books>(
      `select a.user_id, (a.subscription_tokens + a.purchased_tokens - a.debt_tokens)::int as tokens,
         (select coalesce(sum(l.amount_minor), 0)::int from governance.lots l where l.account_id = a.account_id) as booked,
         (select coalesce(sum(coalesce(r.collected_minor, r.amount_minor)), 0)::int from governance.purchase_records r
          where r.account_id = a.account_id and r.record_type in ('grant', 'supplement')) as collected
       from governance.accounts a where a.user_id = any ($1)`,
      [userIds],
    );
    return rows;
  }
});
