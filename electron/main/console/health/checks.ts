/** Checks that need this machine's side: its migrations and its clock. The desk and `npm run doctor` share them. */
import type { HealthCheck } from "../../../../shared/contract/health.ts";

/** The database's clock and this one's differ by more than this: receipts and alerts would be dated wrongly. */
const clockToleranceMs = 60_000;

/** What of our migrations the project lacks, or has beyond them. */
export function compareMigrations(ours: readonly string[], applied: readonly string[]): HealthCheck {
  const missing = ours.filter((name) => !applied.includes(name));
  const unknown = applied.filter((name) => !ours.includes(name));
  const found =
    missing.length > 0
      ? `The project lacks: ${missing.join(", ")}`
      : unknown.length > 0
        ? `The project has migrations that this version does not know: ${unknown.join(", ")}`
        : `All ${ours.length === 1 ? "of the one migration is" : `${ours.length} migrations are`} applied`;
  return {
    check: "migrations",
    ok: missing.length + unknown.length === 0,
    found,
    advice:
      missing.length > 0
        ? "npm run migrate -- --database-url URL"
        : unknown.length > 0
          ? "Use the version of this program that made them"
          : null,
  };
}

/** `askedAt` and `answeredAt` are this machine's milliseconds around the answer. */
export function compareClocks(serverTime: string, askedAt: number, answeredAt: number): HealthCheck {
  const server = Date.parse(serverTime);
  // The server read its clock between the two.
  const apartMs = Math.max(askedAt - server, server - answeredAt, 0);
  const agree = apartMs <= clockToleranceMs;
  return {
    check: "clock_here",
    ok: agree,
    found: agree
      ? "The server's clock and this machine's agree"
      : `The server's clock and this machine's are ${Math.round(apartMs / 1000)} seconds apart`,
    advice: agree ? null : "Set the clock of whichever is wrong; servers use NTP",
  };
}
