/** `npm run check`: types, boundaries, lint and format, without running a test. */
import { runStaticChecks } from "./stages.ts";

const { failed } = await runStaticChecks();
process.exitCode = failed === 0 ? 0 : 1;
