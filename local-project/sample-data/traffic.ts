/**
 * Live calls of the sample's users, made as a product's own backend would make them: through supabase-js, and
 * obeying each answer. A few people misbehave on purpose, so that the console has something to show.
 */
// oxlint-disable-next-line no-restricted-imports -- the sample plays a product's backend, which calls by supabase-js.
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { localTime } from "../../shared/governance/time/index.ts";
import { type Catalogue, MINUTE_MS, pickModel, planOf } from "./history.ts";
import { advertisement, essay, followUp, question } from "./messages.ts";
import type { Habit, Person } from "./people.ts";
import { type Random, seedRandom } from "./random.ts";

export interface TrafficOptions {
  readonly url: string;
  readonly serviceRoleKey: string;
  readonly catalogue: Catalogue;
  /** Phrases that the project's own rules deflect, for the users who stray. */
  readonly offTopicPhrases: readonly string[];
  readonly callsPerSecond: number;
  readonly seed: number;
}

export interface Traffic {
  /** People whose accounts are there by now join in. */
  admit(people: readonly Person[]): void;
  pause(): void;
  resume(): void;
  /** Ends what is in flight (settled at once, or released where that fails) and makes no more calls. */
  stop(): Promise<void>;
  readonly isRunning: boolean;
  /** Calls made so far, answered or not. */
  readonly calls: number;
}

/** What `authorize_usage` answers, as far as a caller needs it. */
interface Answer {
  readonly decision: "allow" | "warn" | "block";
  readonly reason: string | null;
  readonly model: string;
  readonly truncate_to_words: number | null;
  readonly balance: { readonly available: number };
  readonly limits: {
    readonly daily: { readonly limit: number | null; readonly remaining: number | null };
    readonly monthly: { readonly limit: number | null; readonly remaining: number | null };
  };
}

interface Actor {
  readonly person: Person;
  busy: boolean;
  /** Milliseconds since 1970. */
  restsUntil: number;
  /** Part of the tightest limit or balance that is left, from the last answer. */
  headroom: number;
}

interface Turn {
  readonly message: string | null;
  readonly model?: string;
  readonly task_type?: string;
  readonly estimate?: number;
  readonly complexity?: number;
  readonly input: number;
  readonly output: number;
}

type Script = (actor: Actor, say: (turn: Turn, pauseMs: number) => Promise<Answer | null>) => Promise<void>;

const TICK_MS = 200;
const RETRY_MS = 2_000;
const IDLE_AFTER_BLOCK_MS = 25_000;

export function startTraffic(options: TrafficOptions): Traffic {
  const { callsPerSecond, catalogue } = options;
  const client: SupabaseClient = createClient(options.url, options.serviceRoleKey, {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
  });
  const random = seedRandom(options.seed, "traffic", Date.now());
  const run = random.id().slice(0, 8);
  const actors: Actor[] = [];
  const inFlight = new Set<Promise<unknown>>();
  const sleepers = new Set<() => void>();
  let isRunning = true;
  let isStopped = false;
  let calls = 0;
  let conversations = 0;
  let conversing = 0;
  let ticker: NodeJS.Timeout | null = null;

  /** Waits, but not beyond a stop: then what was waited for happens at once. */
  function sleep(milliseconds: number): Promise<void> {
    if (isStopped) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, milliseconds);
      sleepers.add(wake);
    });
  }

  /** Null where the project refused the call or could not be reached: the product's user sees an error. */
  async function rpc<Result>(name: string, parameters: Record<string, unknown>): Promise<Result | null> {
    for (let attempt = 0; attempt < 3 && !(isStopped && attempt > 0); attempt++) {
      const { data, error, status } = await client.rpc(name, parameters);
      if (!error) return data as Result;
      // Anything but an unreachable project would be answered the same again. The key makes a repeat safe.
      if (status !== 0 && status < 500) return null;
      await sleep(RETRY_MS * 2 ** attempt);
    }
    return null;
  }

  async function callOnce(actor: Actor, conversation_id: string | null, turn: Turn): Promise<Answer | null> {
    calls++;
    const { person } = actor;
    const request_id = `sample-${run}-${calls}`;
    const answer = await rpc<Answer>("authorize_usage", {
      p_request_id: request_id,
      p_user_id: person.user_id,
      p_model: turn.model ?? pickModel(random, catalogue.prices, person.plan_rank).model,
      p_estimated_tokens: turn.estimate ?? null,
      p_message: turn.message,
      p_conversation_id: conversation_id,
      p_task_type: turn.task_type ?? "chat",
      p_scope_id: person.scope_id,
      p_complexity: turn.complexity ?? null,
    });
    if (!answer) return null;
    actor.headroom = headroomOf(answer);
    if (answer.decision === "block") return answer;

    await sleep(random.lognormal(900, 0.5) + Math.min(4_000, turn.output * 3));
    const fate = random.next();
    if (fate < 0.02) await rpc("release_usage", { p_request_id: request_id, p_reason: "provider_error" });
    // Now and then a backend dies between the two: its hold heals itself.
    else if (fate > 0.004 + 0.02) {
      const kept = answer.truncate_to_words === null ? 1 : 0.5;
      await rpc("settle_usage", {
        p_request_id: request_id,
        p_input_tokens: Math.round(turn.input * kept),
        p_output_tokens: turn.output,
        p_model: answer.model,
        p_metadata: random.chance(0.25)
          ? { sample_data: true, cached_input_tokens: Math.floor(turn.input * kept * 0.4) }
          : { sample_data: true },
      });
    }
    return answer;
  }

  async function play(actor: Actor, script: Script): Promise<void> {
    actor.busy = true;
    const conversation_id = `sample-${run}-c${++conversations}`;
    await script(actor, async (turn, pauseMs) => {
      while (!isRunning && !isStopped) await sleep(500);
      if (isStopped) return null;
      const answer = callOnce(actor, conversation_id, turn);
      // A machine does not wait for its answer; everybody else does.
      if (pauseMs >= 0) await answer;
      else track(answer);
      await sleep(Math.abs(pauseMs));
      return pauseMs >= 0 ? await answer : null;
    });
    actor.busy = false;
    actor.restsUntil = Date.now() + restMsOf(actor.person.habit, random);
  }

  function track(work: Promise<unknown>): void {
    // Whatever goes wrong in one episode ends that episode alone.
    const done = work.catch(() => {}).finally(() => inFlight.delete(done));
    inFlight.add(done);
  }

  function tick(): void {
    if (isRunning) {
      const now = Date.now();
      const free = actors.filter((actor) => !actor.busy && actor.restsUntil <= now);
      for (const actor of free) {
        const script = scripts[actor.person.habit];
        if (script) track(play(actor, script));
      }
      // An ordinary person in a conversation makes a call about every ten seconds.
      if (conversing < callsPerSecond * 10 && random.chance(callsPerSecond / 10)) {
        const actor = chooseOrdinary(random, free, now);
        if (actor) {
          conversing++;
          track(play(actor, conversation).finally(() => conversing--));
        }
      }
    }
    if (!isStopped) ticker = setTimeout(tick, TICK_MS);
  }

  // ---- how each kind of person behaves ----

  const conversation: Script = async ({ person }, say) => {
    const scale = Math.min(2, 0.6 + 0.4 * person.plan_rank);
    const task_type = random.weighted([
      ["chat", 8],
      ["summarise", 1],
      ["code", 1],
    ]);
    const messages = 1 + random.poisson(3);
    for (let place = 1; place <= messages; place++) {
      const isLong = random.chance(0.015);
      const message = isLong ? essay(random) : place === 1 ? question(random) : followUp(random, place);
      const complexity = random.chance(0.2) ? random.whole(300, 950) / 1000 : undefined;
      const answer = await say(
        {
          message,
          task_type,
          ...(complexity === undefined ? {} : { complexity }),
          input: random.lognormal(320 * scale, 0.5) + (isLong ? 1_200 : 0),
          output: random.lognormal(230 * scale, 0.5),
        },
        random.whole(4_000, 12_000),
      );
      // Who is refused gives up for now.
      if (!answer || answer.decision === "block") return;
    }
  };

  const spam: Script = async (_actor, say) => {
    const model = pickModel(random, catalogue.prices, 0).model;
    for (let count = 0; count < 18; count++) {
      await say({ message: advertisement, model, input: 40, output: 60 }, -random.whole(2_100, 2_700));
    }
  };

  const rattle: Script = async (_actor, say) => {
    const model = pickModel(random, catalogue.prices, 0).model;
    for (let count = 0; count < 26; count++) {
      await say(
        { message: `page ${random.whole(1, 1e6)}`, model, input: 30, output: 50 },
        -random.whole(450, 900),
      );
    }
  };

  const devour: Script = async (_actor, say) => {
    for (let count = 0; count < 3; count++) {
      const input = random.whole(14_000, 48_000);
      const answer = await say(
        {
          message: question(random),
          task_type: "summarise",
          estimate: input + 6_000,
          input,
          output: random.whole(2_000, 6_000),
        },
        random.whole(9_000, 20_000),
      );
      if (!answer) return;
    }
  };

  const stray: Script = async (_actor, say) => {
    const phrase =
      options.offTopicPhrases.length > 0 ? random.pick(options.offTopicPhrases) : "the lottery numbers";
    const message = `Tell me about ${phrase} (${random.whole(1, 9_999)})`;
    await say({ message, input: 60, output: 120 }, random.whole(6_000, 12_000));
    await say({ message: question(random), input: 120, output: 140 }, 1_000);
  };

  const scrape: Script = async (_actor, say) => {
    // Asks for more than there is, then makes do with little.
    const input = random.whole(500, 1_500);
    const much = { message: question(random), estimate: input + 600, input, output: 600 };
    await say(much, random.whole(4_000, 9_000));
    await say({ message: followUp(random, 2), estimate: 25, input: 12, output: 10 }, 1_000);
  };

  const press: Script = async (actor, say) => {
    const limit = planOf(actor.person, catalogue.plans)?.daily_limit ?? 20_000;
    const total = Math.min(9_000, Math.max(60, Math.round(limit * 0.02)));
    for (let count = 0; count < 2; count++) {
      const turn = {
        message: followUp(random, count),
        estimate: total,
        input: Math.round(total * 0.6),
        output: Math.round(total * 0.4),
      };
      const answer = await say(turn, random.whole(6_000, 14_000));
      if (!answer || answer.decision === "block") return;
    }
  };

  const scripts: Partial<Record<Habit, Script>> = {
    spammer: spam,
    bot: rattle,
    token_hog: devour,
    off_topic: stray,
    short_of_tokens: scrape,
    near_limit: press,
  };

  tick();
  return {
    admit(people) {
      const now = Date.now();
      for (const person of people) {
        // The first of each kind of the cast comes on within seconds, the others within minutes.
        const isFirst = !actors.some((actor) => actor.person.habit === person.habit);
        const restsUntil = scripts[person.habit]
          ? now + (isFirst ? random.whole(500, 8_000) : random.whole(15_000, 180_000))
          : 0;
        actors.push({ person, busy: false, restsUntil, headroom: 1 });
      }
    },
    pause() {
      isRunning = false;
    },
    resume() {
      isRunning = !isStopped;
    },
    async stop() {
      isStopped = true;
      isRunning = false;
      if (ticker) clearTimeout(ticker);
      for (const wake of Array.from(sleepers)) wake();
      await Promise.allSettled(inFlight);
    },
    get isRunning() {
      return isRunning;
    },
    get calls() {
      return calls;
    },
  };
}

/** Who is awake, likes to talk, has not just talked, and still has tokens. */
function chooseOrdinary(random: Random, free: readonly Actor[], now: number): Actor | null {
  const ordinary = free.filter(({ person }) => person.habit === "ordinary" || person.habit === "dormant");
  if (ordinary.length === 0) return null;
  const candidates = Array.from({ length: 12 }, () => random.pick(ordinary));
  return random.weighted(
    candidates.map((actor) => {
      const { person, headroom } = actor;
      const distance = Math.abs(localTime(now, person.timezone).hour - person.peak_hour);
      const awake = 1.05 - Math.min(distance, 24 - distance) / 12;
      return [actor, person.conversations_per_day * awake * (headroom > 0.15 ? 1 : 0.03)] as const;
    }),
  );
}

function headroomOf({ balance, limits }: Answer): number {
  const parts = [limits.daily, limits.monthly].map(({ limit, remaining }) =>
    limit === null || limit === 0 || remaining === null ? 1 : remaining / limit,
  );
  return Math.min(...parts, balance.available / 20_000);
}

/** How long a person stays away after an episode. */
function restMsOf(habit: Habit, random: Random): number {
  const minutes: Record<Habit, readonly [number, number]> = {
    ordinary: [4, 20],
    dormant: [30, 120],
    spammer: [0.7, 2],
    bot: [1, 3],
    token_hog: [2, 5],
    off_topic: [1.5, 4],
    short_of_tokens: [2, 6],
    near_limit: [3, 9],
  };
  const [low, high] = minutes[habit];
  return Math.max(IDLE_AFTER_BLOCK_MS, Math.round((low + (high - low) * random.next()) * MINUTE_MS));
}
