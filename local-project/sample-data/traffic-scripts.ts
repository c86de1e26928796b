/** How each kind of the sample's users behaves while it is at the keyboard. */
import { type Catalogue, pickModel, planOf } from "./history.ts";
import { advertisement, essay, followUp, question } from "./messages.ts";
import type { Habit, Person } from "./people.ts";
import type { Random } from "./random.ts";

/** What `authorize_usage` answers, as far as a caller needs it. */
export interface Answer {
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

export interface Actor {
  readonly person: Person;
  busy: boolean;
  /** Milliseconds since 1970. */
  restsUntil: number;
  /** Part of the tightest limit or balance that is left, from the last answer. */
  headroom: number;
}

export interface Turn {
  readonly message: string | null;
  readonly model?: string;
  readonly task_type?: string;
  readonly estimate?: number;
  readonly complexity?: number;
  readonly input: number;
  readonly output: number;
}

/** The means of a script: chance, the catalogue, and phrases. */
export interface Scene {
  readonly random: Random;
  readonly catalogue: Catalogue;
  /** Phrases that the project's own rules deflect, for the users who stray. */
  readonly offTopicPhrases: readonly string[];
}

/**
 * Sends a turn and waits for its answer, then for the pause; null where no answer came. With a negative pause it does
 * not wait for the answer, as a machine would not.
 */
type Say = (turn: Turn, pauseMs: number) => Promise<Answer | null>;

export type Script = (scene: Scene, actor: Actor, say: Say) => Promise<void>;

/** An ordinary person: a handful of messages, each after reading the last answer. */
export const conversation: Script = async ({ random }, { person }, say) => {
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

/** The same advertisement, again and again. */
const spam: Script = async ({ random, catalogue }, _actor, say) => {
  const model = pickModel(random, catalogue.prices, 0).model;
  for (let count = 0; count < 18; count++) {
    await say({ message: advertisement, model, input: 40, output: 60 }, -random.whole(2_100, 2_700));
  }
};

/** A machine that calls faster than a person could. */
const rattle: Script = async ({ random, catalogue }, _actor, say) => {
  const model = pickModel(random, catalogue.prices, 0).model;
  for (let count = 0; count < 26; count++) {
    await say(
      { message: `page ${random.whole(1, 1e6)}`, model, input: 30, output: 50 },
      -random.whole(450, 900),
    );
  }
};

/** A few calls with very long inputs. */
const devour: Script = async ({ random }, _actor, say) => {
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

/** Asks about something the product is not for. */
const stray: Script = async ({ random, offTopicPhrases }, _actor, say) => {
  const phrase = offTopicPhrases.length > 0 ? random.pick(offTopicPhrases) : "the lottery numbers";
  const message = `Tell me about ${phrase} (${random.whole(1, 9_999)})`;
  await say({ message, input: 60, output: 120 }, random.whole(6_000, 12_000));
  await say({ message: question(random), input: 120, output: 140 }, 1_000);
};

/** Asks for more tokens than are left, then for very few. */
const scrape: Script = async ({ random }, _actor, say) => {
  // Asks for more than there is, then makes do with little.
  const input = random.whole(500, 1_500);
  const much = { message: question(random), estimate: input + 600, input, output: 600 };
  await say(much, random.whole(4_000, 9_000));
  await say({ message: followUp(random, 2), estimate: 25, input: 12, output: 10 }, 1_000);
};

/** Uses up a good part of the daily limit. */
const press: Script = async ({ random, catalogue }, actor, say) => {
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

/** By habit; people of no habit here hold ordinary conversations. */
export const scripts: Partial<Record<Habit, Script>> = {
  spammer: spam,
  bot: rattle,
  token_hog: devour,
  off_topic: stray,
  short_of_tokens: scrape,
  near_limit: press,
};
