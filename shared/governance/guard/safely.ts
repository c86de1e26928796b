/** The backend's own functions may throw or reject; a guarded call, or the process, must not end for that. */
export function safely<R>(run: () => R): R | undefined {
  try {
    const answer = run();
    void Promise.resolve(answer).catch(() => undefined);
    return answer;
  } catch {
    return undefined;
  }
}

/**
 * A text as PostgreSQL can keep it: without NUL and halves of pairs (an emoji that was cut in two), and no longer than so
 * many characters.
 */
export const storable = (text: string, longest = text.length): string =>
  text.slice(0, longest).toWellFormed().replaceAll("\0", "\ufffd");
