/** `npm run deliver`: sends the messages of alerts by e-mail, Slack and a webhook; runs on, or once for a scheduler. */
import { parseArgs } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import { deliverDue, ProjectError } from "../supabase/functions/deliver-notifications/deliver.ts";
import { readSettings, SettingError } from "../supabase/functions/deliver-notifications/settings.ts";

const HELP = `npm run deliver -- --url URL [--once] [--every SECONDS]

Sends the messages that alerts have queued: by e-mail to users and operators, to a Slack channel, and to a webhook of
yours. Runs until it is ended; any number of them may run at once.

  --url URL        the project's address; its service-role key is read from GOVERNANCE_SERVICE_ROLE_KEY
  --once           sends what is due and ends: for cron
  --every SECONDS  how often to look (default: 15)
  --help           this text

In the environment, never on the command line:
  SMTP_URL           smtps://user:password@mail.example.com:465 (TLS), or smtp://…:587 (STARTTLS is required);
                     smtp://…?tls=none for a relay inside one network
  MAIL_FROM          "Alerts <alerts@example.com>"
  SLACK_WEBHOOK_URL  the address of a Slack incoming webhook
  WEBHOOK_URL        an address of yours, for the channel webhook
  WEBHOOK_SECRET     whsec_…, what these messages are signed with: echo whsec_$(openssl rand -base64 32)

Exit code: 0 ended as asked, 1 with --once: something could not be sent, or the project not be asked, 2 wrong arguments.
`;

const log = (sentence: string): void => void process.stderr.write(`${sentence}\n`);

function fail(exitCode: 1 | 2, sentence: string): never {
  log(sentence);
  process.exit(exitCode);
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: "string" },
        once: { type: "boolean", default: false },
        every: { type: "string", default: "15" },
        help: { type: "boolean", default: false },
      },
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit(0);
    }
    return values;
  } catch (error) {
    return fail(2, `${(error as Error).message}\n\n${HELP}`);
  }
}

const values = readArguments();
const everySeconds = Number(values.every);
if (!/^\d+$/.test(values.every) || everySeconds < 1 || everySeconds > 3600)
  fail(2, `--every takes a whole number of seconds from 1 to 3600, not "${values.every}".`);
if (values.url === undefined) fail(2, `--url is missing.\n\n${HELP}`);
if (!/^https?:\/\//.test(values.url) || !URL.canParse(values.url))
  fail(2, `--url "${values.url}" is not an address like https://project.supabase.co.`);
const serviceRoleKey = process.env.GOVERNANCE_SERVICE_ROLE_KEY ?? process.env.SUPABASE_SERVICE_ROLE_KEY ?? "";
if (serviceRoleKey === "")
  fail(2, "The service-role key is missing: set GOVERNANCE_SERVICE_ROLE_KEY in the environment.");
const project = { url: values.url, serviceRoleKey };

let settings;
try {
  settings = readSettings((name) => process.env[name]);
} catch (error) {
  if (!(error instanceof SettingError)) throw error;
  fail(2, error.message);
}

/** A message on its way is finished and reported; no further one is begun. */
const ending = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // A second Ctrl-C does not wait.
    if (ending.signal.aborted) process.exit(1);
    ending.abort();
  });
}

let hasProblem = false;
/** Reported once, not in every round. */
let lastProblem = "";
do {
  try {
    const { sent, postponed, failed } = await deliverDue({
      project,
      settings,
      log,
      signal: ending.signal,
    });
    if (values.once || sent + postponed + failed > 0)
      log(`${sent} sent, ${postponed} to be tried again, ${failed} given up.`);
    hasProblem = postponed + failed > 0;
    lastProblem = "";
  } catch (error) {
    if (!(error instanceof ProjectError)) throw error;
    if (error.message !== lastProblem) log(error.message);
    lastProblem = error.message;
    hasProblem = true;
  }
  if (!values.once)
    await sleep(everySeconds * 1000, undefined, { signal: ending.signal }).catch(() => undefined);
} while (!values.once && !ending.signal.aborted);
process.exitCode = values.once && hasProblem ? 1 : 0;
