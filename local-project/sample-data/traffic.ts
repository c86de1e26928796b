/**
 * Live calls of the sample's users, made as a product's own backend would make them: through supabase-js, and
 * obeying each answer. A few people misbehave on purpose, so that the console has something to show.
 */
// oxlint-disable-next-line no-restricted-imports -- the sample plays a product's backend, which calls by supabase-js.
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { localTime } from "../../shared/governance/time/index.ts";
import { type Catalogue, MINUTE_MS, pickModel } from "./history.ts";
import type { Habit, Person } from "./people.ts";
import { type Random, seedRandom } from "./random.ts";
import {
  type Actor,
  type Answer,
  conversation,
  type Scene,
  type Script,
  scripts,
  type Turn,
} from "./traffic-scripts.ts";

interface TrafficOptions {
  readonly url: string;
  readonly serviceRoleKey: string;
  readonly catalogue: Catalogue;
  /** Phrases that the project's own rules deflect, for the users who stray. */
  readonly offTopicPhrases: readonly string[];
  readonly callsPerSecond: number;
  readonly seed: number;
}

export interface Traffic {
  /** People whose accounts exist by now join in. */
  admit(people: readonly Person[]): void;
  pause(): void;
  resume(): void;
  /** Ends what is in flight (settled at once, or released where that fails) and makes no more calls. */
  stop(): Promise<void>;
  readonly isRunning: boolean;
  /** Calls made so far, answered or not. */
  readonly calls: number;
}

const TICK_MS = 200;
const RETRY_MS = 2_000;
const IDLE_AFTER_BLOCK_MS = 25_000;

interface Simulation {
  readonly client: SupabaseClient;
  readonly scene: Scene;
  readonly callsPerSecond: number;
  /** Distinguishes the requests of this run from those of others. */
  readonly run: string;
  readonly actors: Actor[];
  readonly inFlight: Set<Promise<unknown>>;
  readonly sleepers: Set<() => void>;
  isRunning: boolean;
  isStopped: boolean;
  calls: number;
  conversations: number;
  /** Ordinary conversations under way. */
  conversing: number;
  ticker: NodeJS.Timeout | null;
}

export function startTraffic(options: TrafficOptions): Traffic {
  const { catalogue, offTopicPhrases, callsPerSecond } = options;
  const random = seedRandom(options.seed, "traffic", Date.now());
  const simulation: Simulation = {
    client: createClient(options.url, options.serviceRoleKey, {
      auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    }),
    scene: { random, catalogue, offTopicPhrases },
    callsPerSecond,
    run: random.id().slice(0, 8),
    actors: [],
    inFlight: new Set(),
    sleepers: new Set(),
    isRunning: true,
    isStopped: false,
    calls: 0,
    conversations: 0,
    conversing: 0,
    ticker: null,
  };
  tick(simulation);
  return {
    admit: (people) => admit(simulation, people),
    pause() {
      simulation.isRunning = false;
    },
    resume() {
      simulation.isRunning = !simulation.isStopped;
    },
    stop: () => stop(simulation),
    get isRunning() {
      return simulation.isRunning;
    },
    get calls() {
      return simulation.calls;
    },
  };
}

function admit({ actors, scene }: Simulation, people: readonly Person[]): void {
  const { random } = scene;
  const now = Date.now();
  for (const person of people) {
    // The first of each kind of the cast comes on within seconds, the others within minutes.
    const isFirst = !actors.some((actor) => actor.person.habit === person.habit);
    const restsUntil = scripts[person.habit]
      ? now + (isFirst ? random.whole(500, 8_000) : random.whole(15_000, 180_000))
      : 0;
    actors.push({ person, busy: false, restsUntil, headroom: 1 });
  }
}

async function stop(simulation: Simulation): Promise<void> {
  simulation.isStopped = true;
  simulation.isRunning = false;
  if (simulation.ticker) clearTimeout(simulation.ticker);
  for (const wake of Array.from(simulation.sleepers)) wake();
  await Promise.allSettled(simulation.inFlight);
}

/** Starts what is due, again and again. */
function tick(simulation: Simulation): void {
  if (simulation.isRunning) startEpisodes(simulation);
  if (!simulation.isStopped) simulation.ticker = setTimeout(() => tick(simulation), TICK_MS);
}

function startEpisodes(simulation: Simulation): void {
  const { actors, callsPerSecond, scene } = simulation;
  const now = Date.now();
  const free = actors.filter((actor) => !actor.busy && actor.restsUntil <= now);
  for (const actor of free) {
    const script = scripts[actor.person.habit];
    if (script) track(simulation, play(simulation, actor, script));
  }
  // An ordinary person in a conversation makes a call about every ten seconds.
  if (simulation.conversing >= callsPerSecond * 10 || !scene.random.chance(callsPerSecond / 10)) return;
  const actor = chooseOrdinary(scene.random, free, now);
  if (!actor) return;
  simulation.conversing++;
  track(
    simulation,
    play(simulation, actor, conversation).finally(() => simulation.conversing--),
  );
}

function track({ inFlight }: Simulation, work: Promise<unknown>): void {
  // Whatever goes wrong in one episode ends that episode alone.
  const done = work.catch(() => {}).finally(() => inFlight.delete(done));
  inFlight.add(done);
}

async function play(simulation: Simulation, actor: Actor, script: Script): Promise<void> {
  actor.busy = true;
  const conversationId = `sample-${simulation.run}-c${++simulation.conversations}`;
  await script(simulation.scene, actor, (turn, pauseMs) =>
    takeTurn(simulation, actor, conversationId, turn, pauseMs),
  );
  actor.busy = false;
  actor.restsUntil = Date.now() + restMsOf(actor.person.habit, simulation.scene.random);
}

async function takeTurn(
  simulation: Simulation,
  actor: Actor,
  conversationId: string,
  turn: Turn,
  pauseMs: number,
): Promise<Answer | null> {
  while (!simulation.isRunning && !simulation.isStopped) await sleep(simulation, 500);
  if (simulation.isStopped) return null;
  const answer = callOnce(simulation, actor, conversationId, turn);
  // A machine does not wait for its answer; everybody else does.
  if (pauseMs >= 0) await answer;
  else track(simulation, answer);
  await sleep(simulation, Math.abs(pauseMs));
  return pauseMs >= 0 ? await answer : null;
}

async function callOnce(
  simulation: Simulation,
  actor: Actor,
  conversationId: string,
  turn: Turn,
): Promise<Answer | null> {
  const { random, catalogue } = simulation.scene;
  const { person } = actor;
  const requestId = `sample-${simulation.run}-${++simulation.calls}`;
  const answer = await rpc<Answer>(simulation, "authorize_usage", {
    p_request_id: requestId,
    p_user_id: person.user_id,
    p_model: turn.model ?? pickModel(random, catalogue.prices, person.plan_rank).model,
    p_estimated_tokens: turn.estimate ?? null,
    p_message: turn.message,
    p_conversation_id: conversationId,
    p_task_type: turn.task_type ?? "chat",
    p_scope_id: person.scope_id,
    p_complexity: turn.complexity ?? null,
  });
  if (!answer) return null;
  actor.headroom = headroomOf(answer);
  if (answer.decision === "block") return answer;
  await sleep(simulation, random.lognormal(900, 0.5) + Math.min(4_000, turn.output * 3));
  await endCall(simulation, requestId, answer, turn);
  return answer;
}

/** Settles the call; a few are released, and of a few the caller dies, so that the hold expires. */
async function endCall(simulation: Simulation, requestId: string, answer: Answer, turn: Turn): Promise<void> {
  const { random } = simulation.scene;
  const fate = random.next();
  if (fate < 0.02) {
    await rpc(simulation, "release_usage", { p_request_id: requestId, p_reason: "provider_error" });
  } else if (fate > 0.004 + 0.02) {
    const kept = answer.truncate_to_words === null ? 1 : 0.5;
    await rpc(simulation, "settle_usage", {
      p_request_id: requestId,
      p_input_tokens: Math.round(turn.input * kept),
      p_output_tokens: turn.output,
      p_model: answer.model,
      p_metadata: random.chance(0.25)
        ? { sample_data: true, cached_input_tokens: Math.floor(turn.input * kept * 0.4) }
        : { sample_data: true },
    });
  }
}

/** Null where the project refused the call or could not be reached: the product's user sees an error. */
async function rpc<Result>(
  simulation: Simulation,
  name: string,
  parameters: Record<string, unknown>,
): Promise<Result | null> {
  for (let attempt = 0; attempt < 3 && !(simulation.isStopped && attempt > 0); attempt++) {
    const { data, error, status } = await simulation.client.rpc(name, parameters);
    if (!error) return data as Result;
    // Anything but an unreachable project would be answered the same again. The key makes a repeat safe.
    if (status !== 0 && status < 500) return null;
    await sleep(simulation, RETRY_MS * 2 ** attempt);
  }
  return null;
}

/** Waits, but not beyond a stop: then what was waited for happens at once. */
function sleep({ sleepers, isStopped }: Simulation, milliseconds: number): Promise<void> {
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
