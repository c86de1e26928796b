/** What the sample's users write. Only a hash and a word count of it are ever kept. */
import type { Random } from "./random.ts";

const things = [
  "the onboarding checklist",
  "a refund policy",
  "photosynthesis",
  "our Q3 figures",
  "a cover letter",
  "the French Revolution",
  "this stack trace",
  "a birthday toast",
  "compound interest",
  "the release notes",
  "a lease agreement",
  "quadratic equations",
  "the support backlog",
  "a product announcement",
  "a vegetarian week plan",
  "the meeting minutes",
];
const forms = [
  (thing: string, number: number) => `Explain ${thing} in ${number} short points.`,
  (thing: string, number: number) => `Draft ${number} sentences about ${thing}, friendly but exact.`,
  (thing: string, number: number) => `What are the ${number} most common mistakes with ${thing}?`,
  (thing: string, number: number) => `Translate ${thing} into Spanish, keep it under ${number * 10} words.`,
  (thing: string, number: number) => `Compare ${thing} with last year's, as a table of ${number} rows.`,
  (thing: string, number: number) => `Give me ${number} questions to ask about ${thing}.`,
  (thing: string, number: number) => `请用${number}句话介绍一下 ${thing}。`,
  (thing: string, number: number) => `اشرح ${thing} في ${number} نقاط`,
  (thing: string, number: number) => `${thing}について${number}行でまとめてください。`,
  (thing: string, number: number) => `Объясни ${thing} за ${number} минут`,
];
const followUps = [
  "Shorter, please.",
  "And for beginners?",
  "Can you give an example?",
  "Why is that?",
  "Now as an e-mail.",
  "That is not quite what I meant: the second part.",
  "Thanks! One more thing: the sources.",
];

export function question(random: Random): string {
  return random.pick(forms)(random.pick(things), random.whole(3, 9));
}

/** A short reply within a conversation. Numbered, as people seldom send the very same words twice. */
export function followUp(random: Random, place: number): string {
  return random.chance(0.4)
    ? question(random)
    : `${random.pick(followUps)} (${place}, ${random.pick(things)})`;
}

/** Longer than any message should be. */
export function essay(random: Random): string {
  return Array.from({ length: random.whole(70, 120) }, () => question(random)).join(" ");
}

export const advertisement = "WIN a FREE phone!!! Click http://prize.example.com before midnight";
