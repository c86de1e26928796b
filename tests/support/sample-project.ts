/**
 * A local project with an invented history and no traffic: `FOLDER USERS DAYS`. One JSON line when all of it is there.
 * Large samples take a minute to make; a test needs some dozen users.
 */
import { join } from "node:path";
import { startLocalProject } from "../../local-project/index.ts";
import { startSampleData } from "../../local-project/sample-data/index.ts";

const [dataDir, users, days] = process.argv.slice(2);
if (!dataDir || !users || !days)
  throw new Error("Name the folder of the project, how many users, and how many days.");
const project = await startLocalProject({ dataDir });
const sample = startSampleData(project, {
  users: Number(users),
  days: Number(days),
  callsPerSecond: 0,
  stripeFolder: join(dataDir, "sample-stripe"),
});
await sample.filled;
const { problem } = sample.status();
if (problem) throw new Error(problem);
process.on("SIGTERM", () => {
  void sample
    .stop()
    .then(() => project.stop())
    .then(() => process.exit(0));
});
process.stdout.write(`${JSON.stringify({ url: project.url, serviceRoleKey: project.serviceRoleKey })}\n`);
