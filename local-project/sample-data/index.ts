/**
 * Sample data for a local project: some hundred users with weeks of history, then live traffic. Only ever in a
 * database that this module itself marked, while it was still empty; never in a project that a person connected.
 */
import { existsSync } from "node:fs";
import { quoteLiteral, type RunSql } from "../database.ts";
import { type Catalogue, type History, inventHistory } from "./history.ts";
import { accountToLoad, accountToLoadSql, assignIds } from "./load.ts";
import { inventPeople, type Person } from "./people.ts";
import { writeStripeExports } from "./stripe-exports.ts";
import { startTraffic, type Traffic } from "./traffic.ts";

interface SampleProject {
  readonly url: string;
  readonly serviceRoleKey: string;
  /** Runs statements as one transaction in the project's own database, as its owner or a superuser. */
  readonly run: RunSql;
}

interface SampleOptions {
  /** Default 500. A project that has sample data already keeps the number that it was made with. */
  readonly users?: number;
  /** Days of history; default 45. */
  readonly days?: number;
  /** Ordinary calls; those who misbehave come on top. Default 3; 0 for history alone. */
  readonly callsPerSecond?: number;
  readonly seed?: number;
  /** Stripe's exports for the sample's purchases are written there once, when the history is complete. */
  readonly stripeFolder?: string;
  /** 0 to 1, as the history is loaded. */
  readonly onProgress?: (fraction: number) => void;
}

interface SampleStatus {
  /** Live calls are being made. */
  readonly running: boolean;
  /** Live calls made since the start. */
  readonly calls: number;
  /** Part of the history that is loaded; null once all of it is. */
  readonly filling: number | null;
  /** Where Stripe's exports for the sample's purchases lie; null while they are not written. */
  readonly stripe_folder: string | null;
  /** Why there is no sample data, in one sentence; null while all is well. */
  readonly problem: string | null;
}

export interface SampleData {
  pause(): void;
  resume(): void;
  /** Ends filling and traffic. The data stays, and the next start goes on from there. */
  stop(): Promise<void>;
  status(): SampleStatus;
  /** Settles when the whole history is loaded, or filling ended for another reason. Never rejects. */
  readonly filled: Promise<void>;
}

/** What a marked database remembers, so that a later start invents the very same history. */
interface Marker {
  readonly seed: number;
  readonly users: number;
  readonly days: number;
  /** Milliseconds since 1970: where history ends and live traffic began. */
  readonly ends_at: number;
  /** Ids of the feed below this one are the history's. */
  readonly first_id: number;
  readonly reserved_ids: number;
  /** The transaction that set this mark. */
  readonly xid: string;
  readonly filled: boolean;
}

const MARKER_KEY = "sample_data";
/** More than any history needs for one user and day. */
const IDS_PER_USER_DAY = 100;

export function startSampleData(project: SampleProject, options: SampleOptions = {}): SampleData {
  let traffic: Traffic | null = null;
  let filling: number | null = 0;
  let writtenTo: string | null = null;
  let problem: string | null = null;
  let isStopped = false;
  let isPaused = false;

  function progress(fraction: number): void {
    filling = fraction < 1 ? fraction : null;
    options.onProgress?.(fraction);
  }

  async function work(): Promise<void> {
    const marker = await claim(project.run, {
      seed: options.seed ?? 20_260,
      users: options.users ?? 500,
      days: options.days ?? 45,
    });
    if (!marker) {
      problem = "This project has accounts that are not sample data, so no sample data is put into it.";
      filling = null;
      return;
    }
    const catalogue = await readCatalogue(project.run);
    if (catalogue.plans.length === 0 || catalogue.prices.length === 0) {
      problem = "Sample data needs a project with plans and prices: apply a preset, then start it again.";
      filling = null;
      return;
    }
    const people = inventPeople(marker.seed, marker.users, marker.days);
    const rate = options.callsPerSecond ?? 3;
    if (rate > 0 && !isStopped) {
      const { url, serviceRoleKey } = project;
      const offTopicPhrases = await readOffTopicPhrases(project.run);
      traffic = startTraffic({
        url,
        serviceRoleKey,
        catalogue,
        offTopicPhrases,
        callsPerSecond: rate,
        seed: marker.seed,
      });
      if (isPaused) traffic.pause();
    }
    if (marker.filled) {
      traffic?.admit(people);
    } else {
      const isDone = await fill(project.run, marker, catalogue, people, {
        isStopped: () => isStopped,
        onLoaded: (persons, fraction) => {
          traffic?.admit(persons);
          progress(fraction);
        },
      });
      if (!isDone) return;
    }
    const { stripeFolder } = options;
    if (stripeFolder !== undefined) {
      if (!existsSync(stripeFolder)) await writeStripeExports(project.run, stripeFolder);
      writtenTo = stripeFolder;
    }
    progress(1);
  }

  const filled = work().catch((error: unknown) => {
    if (isStopped) return;
    problem = `Sample data could not be made: ${error instanceof Error ? error.message : String(error)}`;
    filling = null;
  });

  return {
    pause() {
      isPaused = true;
      traffic?.pause();
    },
    resume() {
      isPaused = false;
      traffic?.resume();
    },
    async stop() {
      isStopped = true;
      await filled;
      await traffic?.stop();
    },
    status: () => ({
      running: traffic?.isRunning ?? false,
      calls: traffic?.calls ?? 0,
      filling,
      stripe_folder: writtenTo,
      problem,
    }),
    filled,
  };
}

/** The marker of this database; sets it where there is none and no account yet. Null where it is not ours. */
async function claim(
  run: RunSql,
  { seed, users, days }: Pick<Marker, "seed" | "users" | "days">,
): Promise<Marker | null> {
  const reserved_ids = users * days * IDS_PER_USER_DAY;
  const fresh = { seed, users, days, ends_at: Date.now(), reserved_ids, filled: false };
  const rows = await run(`
    lock table governance.accounts in share row exclusive mode;
    do $$
    declare v_marker jsonb := ${quoteLiteral(JSON.stringify(fresh))};
    begin
      if not exists (select from governance.accounts)
        and not exists (select from governance.maintenance_state where key = '${MARKER_KEY}') then
        -- The history's ids come before those of anything live, in order of time; and all of it counts as written
        -- by this transaction, so that a reader of the feed who asks for what is new is not flooded with the past.
        v_marker := v_marker || jsonb_build_object('first_id', nextval('governance.event_ids'), 'xid', pg_current_xact_id()::text);
        perform setval('governance.event_ids', (v_marker ->> 'first_id')::bigint + ${reserved_ids});
        insert into governance.maintenance_state (key, value) values ('${MARKER_KEY}', v_marker);
        -- What follows events starts after the history: loading keeps its figures itself.
        update governance.maintenance_state set value = value || jsonb_build_object('consumed', (v_marker ->> 'first_id')::bigint + ${reserved_ids})
        where key = 'followed_events';
        -- Revenue is counted entry by entry, in order of ids: not before all of the history is there.
        delete from governance.maintenance_state where key = 'counted_revenue';
        update governance.active_config set is_sample_data = true;
        perform governance.ensure_request_partitions((now() - interval '${days + 2} days')::date, (now() + interval '2 months')::date);
      end if;
    end $$;
    select value::text from governance.maintenance_state where key = '${MARKER_KEY}'`);
  const text = rows[0]?.[0];
  return text ? (JSON.parse(text) as Marker) : null;
}

async function readCatalogue(run: RunSql): Promise<Catalogue> {
  const rows = await run(`
    select jsonb_build_object(
      'plans', (select jsonb_agg(to_jsonb(p) order by p.monthly_allowance = 0, p.monthly_allowance, p.plan_id) from governance.plans p where p.retired_at is null),
      'packs', (select jsonb_agg(to_jsonb(p) order by p.tokens) from governance.packs p where p.retired_at is null),
      'prices', (select jsonb_agg(to_jsonb(p)) from (
        select distinct on (model) provider, model, input_micros_per_million, output_micros_per_million
        from governance.prices where retired_at is null and effective_from <= now() - interval '60 days'
        order by model, effective_from desc) p),
      'estimates', (select jsonb_agg(to_jsonb(e) order by e.task_type) from governance.estimates e),
      'hold_minutes', (select hold_minutes from governance.active_config),
      'reasons', (select jsonb_agg(distinct coalesce(r.action -> 'block' ->> 'reason', r.action -> 'deflect' ->> 'reason', 'off_topic'))
        from governance.rules r where r.retired_at is null and r.is_active and r.mode = 'enforce' and r.action ?| array['block', 'deflect']))::text`);
  const found = JSON.parse(rows[0]?.[0] ?? "{}") as { [Key in keyof Catalogue]: Catalogue[Key] | null };
  return {
    plans: found.plans ?? [],
    packs: found.packs ?? [],
    prices: found.prices ?? [],
    estimates: found.estimates ?? [],
    hold_minutes: found.hold_minutes ?? 15,
    reasons: found.reasons ?? [],
  };
}

/** Phrases of the rules that deflect, so that somebody in the sample meets them. */
async function readOffTopicPhrases(run: RunSql): Promise<string[]> {
  const rows = await run(`
    select conditions::text from governance.rules
    where retired_at is null and is_active and (action ? 'deflect' or action -> 'block' ->> 'reason' = 'off_topic')`);
  const phrases = new Set<string>();
  const walk = (node: unknown): void => {
    if (node === null || typeof node !== "object") return;
    const { op, value } = node as { op?: unknown; value?: unknown };
    if (op === "contains" || op === "matches_any") {
      for (const phrase of [value].flat()) if (typeof phrase === "string") phrases.add(phrase);
    }
    for (const child of Object.values(node)) walk(child);
  };
  for (const [conditions] of rows) if (conditions) walk(JSON.parse(conditions));
  return [...phrases];
}

const actedAt = ({ flag, block }: History): number => flag?.at ?? block?.at ?? Number.MAX_SAFE_INTEGER;

/** Loads the accounts that are not there yet, one transaction each. False where it was stopped before the end. */
async function fill(
  run: RunSql,
  marker: Marker,
  catalogue: Catalogue,
  people: readonly Person[],
  {
    isStopped,
    onLoaded,
  }: { isStopped: () => boolean; onLoaded: (people: Person[], fraction: number) => void },
): Promise<boolean> {
  const histories: History[] = [];
  for (const person of people) {
    if (isStopped()) return false;
    histories.push(
      inventHistory(person, catalogue, { seed: marker.seed, days: marker.days, endsAt: marker.ends_at }),
    );
    // Inventing takes a second or so altogether: leave room for others in this process.
    await new Promise(setImmediate);
  }
  const ids = assignIds(histories, marker);
  // What operators did comes first, in order of time: the audit log is numbered as it is written.
  histories.sort((one, other) => actedAt(one) - actedAt(other));
  const there = new Set((await run("select user_id from governance.accounts")).map(([user_id]) => user_id));
  for (const [index, history] of histories.entries()) {
    if (isStopped()) return false;
    if (!there.has(history.person.user_id))
      await run(accountToLoadSql(accountToLoad(history, ids), marker.xid));
    onLoaded([history.person], Math.min(0.999, (index + 1) / histories.length));
  }
  await run(`
    insert into governance.maintenance_state (key, value) values ('counted_revenue', '{"consumed": 0}')
    on conflict do nothing;
    update governance.maintenance_state set value = value || '{"filled": true}', updated_at = now() where key = '${MARKER_KEY}'`);
  return true;
}
