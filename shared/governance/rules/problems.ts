/** What is wrong with outside input: where, what, and how to mend it. */
export interface Problem {
  /** Place in the input, e.g. `conditions.all[2].value`; empty for the whole. */
  readonly path: string;
  readonly message: string;
  /** What to write instead. */
  readonly fix: string;
}

/** One line for a person: "conditions.all[0].fact: unknown fact "message_today". Did you mean "messages_today"?" */
export function describeProblem(problem: Problem): string {
  return `${problem.path === "" ? "" : `${problem.path}: `}${problem.message} ${problem.fix}`;
}

/** Single-character edits between two words, for "did you mean"; long words count as far apart. */
function editDistance(a: string, b: string): number {
  if (a.length > 40 || b.length > 40) return 99;
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 99;
}

/** The known word that was probably meant, or null. */
export function nearestWord(word: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.floor(word.length / 4)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** `Did you mean "x"?`, or the list to choose from. */
export function suggest(word: string, known: readonly string[]): string {
  const near = nearestWord(word, known);
  return near ? `Did you mean "${near}"?` : `Use one of: ${known.join(", ")}.`;
}

/** A value as an error shows it: short, quoted, never a megabyte. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return value.length > 60 ? `"${value.slice(0, 60)}…"` : `"${value}"`;
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  return typeof value === "number" || typeof value === "boolean" ? String(value) : typeof value;
}
