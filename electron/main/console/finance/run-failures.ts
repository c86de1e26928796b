/** Why a run cannot start, did not end, or cannot be shown. */
import type { Failure } from "../../../../shared/contract/index.ts";
import type { InputProblem } from "../../../../shared/governance/reconciliation/index.ts";

export function badInput(problems: readonly InputProblem[]): Failure {
  const lines = problems.map(
    ({ file, row, column, message }) =>
      `${file}${row === null ? "" : `, row ${row}`}${column === null ? "" : `, column ${column}`}: ${message}`,
  );
  return {
    code: problems[0]?.code ?? "bad_input",
    message: lines[0] ?? "A file cannot be read.",
    advice: lines.length > 1 ? `There are ${lines.length} problems; the details name them all.` : null,
    details: lines.slice(0, 200).join("\n") || null,
  };
}

export const crashed = (details: string): Failure => ({
  code: "internal",
  message: "The reconciliation broke off.",
  advice: "Try again. If it happens again, report it with these details.",
  details,
});
export const badPeriod: Failure = {
  code: "invalid_argument",
  message: "The period ends before it begins.",
  advice: "Choose a last day not before the first.",
  details: null,
};
export const openPeriod: Failure = {
  code: "invalid_argument",
  message: "To read Stripe's API, the period needs a first and a last day.",
  advice: "Choose a month, or both days.",
  details: null,
};
export const noSource: Failure = {
  code: "invalid_argument",
  message: "There is nothing to reconcile with.",
  advice: "Bring an export from Stripe, or connect Stripe.",
  details: null,
};
export const oneAtATime: Failure = {
  code: "busy",
  message: "A reconciliation is running already.",
  advice: "Wait for it, or cancel it.",
  details: null,
};
export const noRun: Failure = {
  code: "not_found",
  message: "This run is not kept here.",
  advice: "The last 30 runs are kept. Run it again.",
  details: null,
};
export const notFinished: Failure = {
  code: "not_ready",
  message: "This run has no result.",
  advice: "Run it again.",
  details: null,
};
