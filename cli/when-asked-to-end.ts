/** At a signal; also when the npm that started this is gone: it does not pass on every signal. */
export function whenAskedToEnd(end: () => void): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, end);
  if (process.env.npm_lifecycle_event === undefined) return;
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    end();
  }, 500).unref();
}
