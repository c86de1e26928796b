/**
 * `npm run statement`: exports an account's ledger, and checks an exported one without any network: anyone who holds the
 * file can see that nothing in it was changed.
 */
import { createReadStream, existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { z } from "zod";
import { createBackend } from "../electron/main/backend/backend.ts";
import { checkStatement, formatCount } from "../shared/governance/index.ts";

const HELP = `npm run statement -- --user USER --url URL > statement.ndjson
npm run statement -- --check FILE [--last-hash HASH] [--previous-hash HASH]

The first writes an account's whole ledger, oldest entry first, one JSON object a line. The service-role key is read
from GOVERNANCE_SERVICE_ROLE_KEY. The second checks such a file: hashes, order, arithmetic, lots, and that what is
shown is what is hashed. It needs no network and no key.

  --user USER            whose ledger
  --url URL              the project
  --check FILE           the statement to check (- for standard input)
  --last-hash HASH       the hash that the last entry must have: without it, a missing end or a chain that was made
                         again from the first changed entry on cannot be seen
  --previous-hash HASH   of the entry before the first, for a statement that begins in the middle
  --json                 what was found, as JSON
  --help                 this text

Exit code: 0 written, or sound; 1 not sound, or the project failed; 2 wrong arguments.
`;

/** Wrong arguments. */
class BadCall extends Error {}

const rows = z.array(z.looseObject({ transaction_id: z.number() }));
const pageSize = 500;

async function exportStatement(user: string, url: string): Promise<number> {
  const key = process.env["GOVERNANCE_SERVICE_ROLE_KEY"] ?? process.env["SUPABASE_SERVICE_ROLE_KEY"] ?? "";
  if (key === "")
    throw new BadCall("The service-role key is missing: set GOVERNANCE_SERVICE_ROLE_KEY in the environment.");
  if (!/^https?:\/\//.test(url) || !URL.canParse(url))
    throw new BadCall(`--url "${url}" is not an address like https://project.supabase.co.`);
  const backend = createBackend({ url, key });
  try {
    // The project answers the newest first; a statement begins with the oldest.
    const pages: string[] = [];
    for (let before: number | null = null; ; ) {
      const answer = await backend.rpc(
        "get_user_transaction_history",
        { p_user_id: user, p_limit: pageSize, p_before_id: before },
        rows,
        { retries: 3, timeoutMs: 60_000 },
      );
      if (!answer.ok) throw new Error([answer.error.message, answer.error.advice].filter(Boolean).join(" "));
      const page: z.output<typeof rows> = answer.value;
      pages.push(
        page
          .toReversed()
          .map((row) => `${JSON.stringify(row)}\n`)
          .join(""),
      );
      before = page.at(-1)?.transaction_id ?? null;
      if (page.length < pageSize || before === null) break;
    }
    process.stdout.write(pages.toReversed().join(""));
    return 0;
  } finally {
    await backend.close();
  }
}

async function check(
  path: string,
  lastHash: string | null,
  previousHash: string | null,
  json: boolean,
): Promise<number> {
  for (const hash of [lastHash, previousHash])
    if (hash !== null && !/^[0-9a-f]{64}$/.test(hash))
      throw new BadCall(`"${hash}" is no hash: 64 digits of 0-9 and a-f.`);
  if (path !== "-" && !existsSync(path)) throw new BadCall(`There is no file ${path}.`);
  const statement = checkStatement(previousHash);
  const input = path === "-" ? process.stdin : createReadStream(path);
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === "") continue;
    try {
      statement.push(JSON.parse(line));
    } catch {
      statement.push(null);
    }
  }
  const report = statement.report();
  const isAtEnd = lastHash === null || lastHash === report.last_hash;
  const isSound = report.entries_checked > 0 && report.problems.length === 0 && isAtEnd;
  if (json) {
    process.stdout.write(`${JSON.stringify({ ...report, is_sound: isSound }, null, 2)}\n`);
    return isSound ? 0 : 1;
  }
  const lines = report.problems.map(
    ({ entry, transaction_id, message }) =>
      `Entry ${entry}${transaction_id === null ? "" : ` (${transaction_id})`}: ${message}`,
  );
  if (!isAtEnd)
    lines.push(
      `The last hash is ${report.last_hash ?? "none"}, not ${lastHash}: the end is missing or was changed.`,
    );
  lines.push(
    report.entries_checked === 0
      ? "There is no entry in it."
      : `${isSound ? "Sound" : "Not sound"}: ${formatCount(report.entries_checked)} entries of ${JSON.stringify(report.user_id)}, from ${formatCount(report.opening_balance ?? 0)} to ${formatCount(report.closing_balance ?? 0)} tokens${report.closing_debt ? `, ${formatCount(report.closing_debt)} owed` : ""}.`,
  );
  if (isSound && lastHash === null)
    lines.push(`Compare its last hash with one you trust: ${report.last_hash}`);
  // What came from outside must not steer the terminal.
  process.stdout.write(
    lines.map((line) => `${line.replace(/[\p{Cc}\p{Bidi_Control}]/gu, "\ufffd")}\n`).join(""),
  );
  return isSound ? 0 : 1;
}

async function main(): Promise<number> {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        user: text,
        url: text,
        check: text,
        "last-hash": text,
        "previous-hash": text,
        json: flag,
        help: flag,
      },
    }));
  } catch (error) {
    throw new BadCall((error as Error).message);
  }
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (values.check !== undefined)
    return check(
      values.check,
      values["last-hash"] ?? null,
      values["previous-hash"] ?? null,
      values.json ?? false,
    );
  if (values["last-hash"] !== undefined || values["previous-hash"] !== undefined)
    throw new BadCall("--last-hash and --previous-hash go with --check FILE.");
  if (values.user === undefined || values.url === undefined)
    throw new BadCall("Say what to do: --user and --url to export, or --check FILE.");
  return exportStatement(values.user, values.url);
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(
    `${(error as Error).message}${error instanceof BadCall ? "\n\nSee npm run statement -- --help." : ""}\n`,
  );
  process.exitCode = error instanceof BadCall ? 2 : 1;
}
