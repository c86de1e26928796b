/**
 * The order of the test files: those that take longest first, so that the workers end together. A file's size, by
 * which vitest sorts files that it has not run before, says little: the heaviest test here is one of the shortest files.
 */
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** By the time they took on two cores, from a minute and more down to ten seconds. */
const longest: readonly string[] = [
  "tests/database/attack/every-function.test.ts",
  "tests/database/rules/core-equals-sql.test.ts",
  "tests/database/calls/concurrency.test.ts",
  "tests/database/calls/crash.test.ts",
  "tests/database/upkeep/schedule.test.ts",
  "tests/database/attack/attack.test.ts",
  "tests/database/calls/histories.test.ts",
  "tests/database/ledger/proof.test.ts",
  "tests/database/endpoint/lifecycle.test.ts",
  "tests/database/stripe/convergence.test.ts",
  "tests/database/sample-data/history.test.ts",
  "electron/main/console/console.test.ts",
  "tests/database/migrations/migrate.test.ts",
  "tests/database/sample-data/stripe-exports.test.ts",
  "tests/database/rules/core-equals-pglite.test.ts",
  "tests/database/guard/guard.test.ts",
  "cli/backtest.test.ts",
  "electron/packaging.test.ts",
  "tests/database/reconciliation/stripe-api.test.ts",
  "tests/database/alerts/deliver.test.ts",
  "tests/database/ledger/core-reads-records.test.ts",
];

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => {
      const found = longest.findIndex((path) => moduleId.endsWith(`/${path}`));
      return found < 0 ? longest.length : found;
    };
    return (await super.sort(files)).sort((one, other) => place(one) - place(other));
  }
}
