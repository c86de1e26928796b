/** `npm run reconcile`: reconciles Stripe's exports or its API with a project's ledger, without a screen, for a nightly job. */
import { createHash } from "node:crypto";
import { createWriteStream, mkdirSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import {
  differencesCsv,
  type InputFile,
  type InputProblem,
  inspectExports,
  type LedgerRecord,
  type KnownPayments,
  type PackPrice,
  type Period,
  type ReconcileOptions,
  type Report,
  reconcile,
  type RollForwardLine,
  stripeApiFiles,
} from "../shared/governance/reconciliation/index.ts";
import { summary } from "./reconcile-summary.ts";
import { openInputFile } from "../electron/main/console/finance/input-file.ts";
import {
  openStripeCache,
  type StripeCache,
  stripeAccountRecords,
} from "../electron/main/console/finance/stripe-source-cache.ts";
import {
  type StripeClientOptions,
  stripeEndpoint,
} from "../electron/main/console/finance/stripe-source-client.ts";
import {
  checkStripeKey,
  lookBackSeconds,
  readStripe,
  stripeCachePath,
} from "../electron/main/console/finance/stripe-source.ts";
import { conventionalDataDir } from "../electron/main/store/data-dir.ts";
import type { Failure } from "../shared/contract/index.ts";

const HELP = `npm run reconcile -- --stripe FILE… --url URL [--from D --to D] [--out DIR]
npm run reconcile -- --stripe-api --url URL --from D --to D [--out DIR]

Reconciles Stripe's CSV exports, or its API, with the ledger of a project and writes report.json and differences.csv.

  --stripe FILE…      exports from Stripe: payments, balance history, balance change itemized,
                      payout reconciliation itemized, disputes; several at once
  --stripe-api        read Stripe itself, with a restricted key from STRIPE_API_KEY that may read balance transaction
                      sources, charges and refunds, disputes, checkout sessions and invoices; files may come beside
  --url URL           the project's address; its service-role key is read from GOVERNANCE_SERVICE_ROLE_KEY
  --from D, --to D    the period, days (the last one included) or moments (the last one not); UTC.
                      Without them: the days that the files cover. --stripe-api needs both
  --out DIR           where to write (default: this directory)
  --cache DIR         where what was read of Stripe is kept, so that the next run reads only what is new
                      (default: ${conventionalDataDir()}); the key is never in it
  --data-through D    until when the exports are complete, where you know it
  --account acct_…    sets rows of other Stripe accounts aside
  --decimal . or ,    the decimal sign, where a spreadsheet made it ambiguous
  --date-order dmy or mdy   the order in dates with slashes or dashes
  --help              this text

Exit code: 0 tied out, 1 differences, 2 bad input.
`;

class BadArguments extends Error {}

interface Arguments {
  readonly paths: readonly string[];
  /** Null where the files are all. */
  readonly stripe: { readonly key: string; readonly cacheDir: string } | null;
  readonly url: URL;
  readonly key: string;
  readonly from: string | null;
  readonly to: string | null;
  readonly outDir: string;
  readonly options: ReconcileOptions;
}

const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** The moment that an option names; a day means its midnight UTC, or, as the end of a period, the next one. */
function moment(text: string | undefined, name: string, dayMeans: "its start" | "its end"): string | null {
  if (text === undefined) return null;
  const time = Date.parse(DAY.test(text) ? `${text}T00:00:00Z` : text);
  if (Number.isNaN(time) || (DAY.test(text) && !new Date(time).toISOString().startsWith(text)))
    throw new BadArguments(
      `--${name} "${text}" is not a day like 2026-10-31, nor a moment like 2026-10-31T12:00:00Z.`,
    );
  return new Date(dayMeans === "its end" && DAY.test(text) ? time + 86_400_000 : time).toISOString();
}

function readArguments(): Arguments | null {
  const text = { type: "string" } as const;
  let parsed;
  try {
    parsed = parseArgs({
      options: {
        stripe: { type: "string", multiple: true },
        "stripe-api": { type: "boolean" },
        cache: text,
        url: text,
        from: text,
        to: text,
        out: text,
        "data-through": text,
        account: text,
        decimal: text,
        "date-order": text,
        help: { type: "boolean" },
      },
      allowPositionals: true, // --stripe a.csv b.csv
    });
  } catch (error) {
    throw new BadArguments((error as Error).message);
  }
  const { values, positionals } = parsed;
  if (values.help) return null;
  const paths = [...(values.stripe ?? []), ...positionals];
  const isApi = values["stripe-api"] === true;
  if (paths.length === 0 && !isApi)
    throw new BadArguments(
      "--stripe is missing: name at least one export, or read Stripe itself with --stripe-api.",
    );
  if (values.cache !== undefined && !isApi) throw new BadArguments("--cache goes with --stripe-api.");
  if (isApi && (values.from === undefined || values.to === undefined))
    throw new BadArguments("--stripe-api needs --from and --to: an API has no days of its own.");
  const stripeKey = process.env["STRIPE_API_KEY"]?.trim() ?? "";
  if (isApi && stripeKey === "")
    throw new BadArguments(
      "Stripe's key is missing: set STRIPE_API_KEY in the environment, to a restricted key (rk_…).",
    );
  if (values.url === undefined) throw new BadArguments("--url is missing.");
  if (!/^https?:\/\//.test(values.url) || !URL.canParse(values.url))
    throw new BadArguments(`--url "${values.url}" is not an address like https://project.supabase.co.`);
  const key = process.env["GOVERNANCE_SERVICE_ROLE_KEY"] ?? process.env["SUPABASE_SERVICE_ROLE_KEY"] ?? "";
  if (key === "")
    throw new BadArguments(
      "The service-role key is missing: set GOVERNANCE_SERVICE_ROLE_KEY in the environment.",
    );
  const { decimal, "date-order": dateOrder } = values;
  if (decimal !== undefined && decimal !== "." && decimal !== ",")
    throw new BadArguments("--decimal is . or ,");
  if (dateOrder !== undefined && dateOrder !== "dmy" && dateOrder !== "mdy")
    throw new BadArguments("--date-order is dmy or mdy");
  const dataThrough = moment(values["data-through"], "data-through", "its end");
  const from = moment(values.from, "from", "its start");
  const to = moment(values.to, "to", "its end");
  if (from !== null && to !== null && from >= to)
    throw new BadArguments(`--from "${values.from}" is not before --to "${values.to}".`);
  return {
    paths,
    stripe: isApi ? { key: stripeKey, cacheDir: values.cache ?? conventionalDataDir() } : null,
    url: new URL(values.url.endsWith("/") ? values.url : `${values.url}/`),
    key,
    from,
    to,
    outDir: values.out ?? ".",
    options: {
      create_sha256: () => createHash("sha256"),
      ...(dataThrough === null ? {} : { data_through: dataThrough }),
      ...(values.account === undefined ? {} : { account_id: values.account }),
      ...(decimal === undefined ? {} : { decimal }),
      ...(dateOrder === undefined ? {} : { date_order: dateOrder }),
    },
  };
}

const openFiles = (paths: readonly string[]): InputFile[] =>
  paths.map((path) => openInputFile(basename(path), path, statSync(path).size));

function checkFiles(paths: readonly string[]): void {
  for (const path of paths) {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (!stats) throw new BadArguments(`There is no file ${path}.`);
    if (!stats.isFile()) throw new BadArguments(`${path} is not a file.`);
  }
}

/** A call of the project that failed for good; its message never holds the key. */
class ProjectFailed extends Error {}

async function rpc<T>(given: Arguments, name: string, args: Readonly<Record<string, unknown>>): Promise<T> {
  const address = new URL(`rest/v1/rpc/${name}`, given.url);
  for (let attempt = 1; ; attempt++) {
    let response: Response;
    let body: string;
    try {
      response = await fetch(address, {
        method: "POST",
        headers: {
          apikey: given.key,
          authorization: `Bearer ${given.key}`,
          "content-type": "application/json",
        },
        body: JSON.stringify(args),
        signal: AbortSignal.timeout(120_000),
      });
      body = await response.text();
      // A body that was cut off may end without an error, and is no JSON then.
      if (response.ok) return JSON.parse(body) as T;
    } catch (error) {
      // All that is read here may be read again.
      if (attempt < 4) {
        await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
        continue;
      }
      const reason = (error as { cause?: { code?: string } }).cause?.code ?? (error as Error).message;
      throw new ProjectFailed(`${given.url.origin} cannot be reached (${reason}).`);
    }
    if ((response.status === 429 || response.status >= 500) && attempt < 4) {
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
      continue;
    }
    const said = /"message"\s*:\s*"([^"]*)"/.exec(body)?.[1] ?? body.slice(0, 200);
    throw new ProjectFailed(
      response.status === 404
        ? `The project does not know ${name}: apply the migrations first (npm run migrate).`
        : `The project refused ${name}: ${response.status} ${said}`,
    );
  }
}

interface LedgerPage {
  readonly records: readonly LedgerRecord[];
  readonly next_cursor: string | null;
  readonly has_more: boolean;
}

async function* readLedger(given: Arguments, period: Period): AsyncGenerator<readonly LedgerRecord[]> {
  let cursor: string | null = null;
  for (;;) {
    const page: LedgerPage = await rpc<LedgerPage>(given, "console_ledger_purchases_since", {
      p_cursor: cursor,
      p_limit: 5000,
      p_from: period.from,
      p_to: period.to,
    });
    yield page.records;
    if (!page.has_more) return;
    cursor = page.next_cursor;
  }
}

/** What was read of Stripe, and until when. */
interface StripeRead {
  readonly cache: StripeCache;
  readonly files: () => InputFile[];
  readonly options: Pick<ReconcileOptions, "account_id" | "data_from" | "data_through">;
}

/** Stripe refused, or could not be reached. */
class StripeFailed extends Error {
  constructor({ message, advice, details }: Failure) {
    super([message, advice, details && `(${details})`].filter(Boolean).join(" "));
  }
}

async function readStripeApi(
  given: Arguments,
  stripe: NonNullable<Arguments["stripe"]>,
): Promise<StripeRead> {
  const client: StripeClientOptions = { key: stripe.key, ...stripeEndpoint(process.env) };
  const checked = await checkStripeKey(client);
  if (!checked.ok) throw new StripeFailed(checked.error);
  const { account_id: accountId, mode, permissions } = checked.value;
  if (given.options.account_id !== undefined && given.options.account_id !== accountId)
    throw new BadArguments(`The key is of ${accountId}, --account says ${given.options.account_id}.`);
  const lacking = permissions.filter((one) => !one.is_granted).map(({ row }) => `"${row}"`);
  if (lacking.length > 0)
    throw new BadArguments(`The key lacks ${lacking.join(", ")}: in Stripe's dashboard, set each to Read.`);
  if (mode === "test")
    process.stderr.write(
      "warning: the key is of test mode; in a live project each of its payments is a leak.\n",
    );
  const since = Math.floor(Date.parse(given.from as string) / 1000) - lookBackSeconds;
  const cache = openStripeCache(
    stripeCachePath(stripe.cacheDir, given.url.host.replaceAll(":", "-"), checked.value),
  );
  const read = await readStripe({
    ...client,
    cache,
    account_id: accountId,
    from: since,
    now: () => new Date(),
  });
  if (!read.ok) {
    cache.close();
    throw new StripeFailed(read.error);
  }
  const iso = (seconds: number): string => new Date(seconds * 1000).toISOString();
  const { objects, requests, through, api_version: version } = read.value;
  process.stdout.write(
    `Stripe ${accountId}, ${mode} mode: ${objects} objects read in ${requests} requests (API ${version}), complete through ${iso(through)}.\n`,
  );
  return {
    cache,
    files: () =>
      stripeApiFiles(
        stripeAccountRecords(cache, { account_id: accountId, livemode: mode === "live" }, since),
      ),
    options: { account_id: accountId, data_from: iso(since), data_through: iso(through) },
  };
}

/** The period asked for; where an end is open, the days that the files cover. */
async function findPeriod(given: Arguments): Promise<Period | readonly InputProblem[]> {
  if (given.from !== null && given.to !== null) return { from: given.from, to: given.to };
  const { create_sha256: _hash, ...options } = given.options;
  const looked = await inspectExports(openFiles(given.paths), options);
  if (!looked.ok) return looked.error.problems;
  const windows = looked.value.flatMap(({ window }) => (window ? [window] : []));
  const first = windows.map((window) => window.from).toSorted()[0];
  const last = windows
    .map((window) => window.to)
    .toSorted()
    .at(-1);
  if (first === undefined || last === undefined)
    throw new BadArguments(
      "The files have no rows, so no period can be read from them: give --from and --to.",
    );
  return {
    from: given.from ?? (moment(first.slice(0, 10), "from", "its start") as string),
    to: given.to ?? (moment(last.slice(0, 10), "to", "its end") as string),
  };
}

const place = ({ file, row, column }: InputProblem): string =>
  [file, row === null ? "" : `row ${row}`, column === null ? "" : `column ${column}`]
    .filter(Boolean)
    .join(", ");

async function writeReport(report: Report, outDir: string): Promise<void> {
  mkdirSync(outDir, { recursive: true });
  await writeFile(join(outDir, "report.json"), `${JSON.stringify(report, null, 2)}\n`);
  await pipeline(
    Readable.from(differencesCsv(report.differences)),
    createWriteStream(join(outDir, "differences.csv")),
  );
}

function showProblems(problems: readonly InputProblem[], level: "error" | "warning"): void {
  for (const found of problems) process.stderr.write(`${level}: ${place(found)}: ${found.message}\n`);
}

async function main(): Promise<0 | 1 | 2> {
  const given = readArguments();
  if (given === null) {
    process.stdout.write(HELP);
    return 0;
  }
  checkFiles(given.paths);
  const period = await findPeriod(given);
  if (!("from" in period)) {
    showProblems(period, "error");
    return 2;
  }
  const [packs, knownPayments, rollForward] = await Promise.all([
    rpc<PackPrice[]>(given, "console_pack_prices", {}),
    rpc<KnownPayments>(given, "console_known_payments", { p_from: period.from, p_to: period.to }),
    rpc<RollForwardLine[]>(given, "console_token_roll_forward", { p_from: period.from, p_to: period.to }),
  ]);
  const stripe = given.stripe && (await readStripeApi(given, given.stripe));
  const result = await reconcile({
    stripeFiles: [...(stripe?.files() ?? []), ...openFiles(given.paths)],
    ledger: readLedger(given, period),
    period,
    options: {
      ...given.options,
      ...stripe?.options,
      packs,
      known_payments: knownPayments,
      roll_forward: rollForward,
      // The project answers with what came up to three days late.
      ledger_through: new Date(Math.min(Date.now(), Date.parse(period.to) + 3 * 86_400_000)).toISOString(),
    },
  });
  stripe?.cache.close();
  if (!result.ok) {
    showProblems(result.error.problems, "error");
    return 2;
  }
  await writeReport(result.value, given.outDir);
  showProblems(result.value.warnings, "warning");
  process.stdout.write(summary(result.value));
  return result.value.tied_out ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof BadArguments || error instanceof ProjectFailed || error instanceof StripeFailed)) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    process.stderr.write(`${message}\n`);
  } else process.stderr.write(`${error.message}\n${error instanceof BadArguments ? `\n${HELP}` : ""}`);
  process.exitCode = 2;
}
