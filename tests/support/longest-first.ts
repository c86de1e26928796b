/**
 * The order of the test files: those that take longest first, so that the workers end together. A file's size, which
 * vitest goes by where it has not run before, says nothing: the heaviest test here is one of the shortest files.
 */
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** By the time they took on two cores, from a minute and more down to ten seconds. */
const longest: readonly string[] = [
  "tests/database/enforcement-hostile.test.ts",
  "tests/database/core-equals-sql.test.ts",
  "tests/database/enforcement-concurrency.test.ts",
  "tests/database/enforcement-crash.test.ts",
  "tests/database/enforcement-schedule.test.ts",
  "tests/database/attack.test.ts",
  "tests/database/enforcement-histories.test.ts",
  "tests/database/proof.test.ts",
  "tests/database/endpoint-lifecycle.test.ts",
  "tests/database/purchases-convergence.test.ts",
  "tests/database/sample-data.test.ts",
  "electron/main/console/console.test.ts",
  "tests/database/migrate.test.ts",
  "tests/database/sample-data-stripe.test.ts",
  "tests/database/core-equals-pglite.test.ts",
  "tests/database/guard.test.ts",
  "cli/backtest.test.ts",
  "electron/packaging.test.ts",
  "tests/database/reconcile-stripe-api.test.ts",
  "tests/database/deliver.test.ts",
  "tests/database/core-reads-records.test.ts",
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
