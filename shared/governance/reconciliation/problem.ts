import type { InputProblem } from "./types.ts";

/** A problem of a whole file; with an empty name, of the input. */
export const fileProblem = (code: string, file: string, message: string): InputProblem => ({
  code,
  file,
  row: null,
  column: null,
  message,
});

/** Carries a fatal input problem up to `reconcile`, which turns it into a value. Never leaves this folder. */
export class BadInput extends Error {
  readonly problem: InputProblem;
  constructor(problem: InputProblem) {
    super(problem.message);
    this.problem = problem;
  }
}

/** Stops a run whose signal was aborted. Never leaves this folder. */
export class Cancelled extends Error {}
