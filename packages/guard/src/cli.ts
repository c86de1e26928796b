#!/usr/bin/env node
/** `npx @token-governance/guard`: checks that a backend's settings will do, and reports what is wrong. */
import process from "node:process";
import { checkProject } from "./check.ts";
import { connect } from "./connect.ts";

const help = `npx @token-governance/guard [--user ID]

Checks the project that SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY name, as the guard will use it: key, migrations,
clock, and a dry call for a user (guard-check, or --user), which is given back at once. Ends with 1 where something is
not right.`;

const args = process.argv.slice(2);
if (args.includes("--help") || args.includes("-h")) console.log(help);
else process.exitCode = await check();

async function check(): Promise<number> {
  const { SUPABASE_URL: url, SUPABASE_SERVICE_ROLE_KEY: key } = process.env;
  if (!url || !key || !URL.canParse(url)) {
    const missing = !url
      ? "SUPABASE_URL is not set"
      : !key
        ? "SUPABASE_SERVICE_ROLE_KEY is not set"
        : "SUPABASE_URL is no URL";
    console.error(`✗ settings: ${missing}.\n\n${help}`);
    return 1;
  }
  const at = args.indexOf("--user");
  const user = (at < 0 ? undefined : args[at + 1]) ?? "guard-check";
  const client = connect({ url, key }, (input, init) =>
    fetch(input, { ...init, signal: AbortSignal.timeout(10_000) }),
  );
  const findings = await checkProject({ client, now: Date.now, newId: () => crypto.randomUUID(), user });
  for (const { what, isRight, found, mend } of findings)
    console.log(`${isRight ? "✓" : "✗"} ${what}: ${found}${mend ? `\n  ${mend}` : ""}`);
  return findings.every(({ isRight }) => isRight) ? 0 : 1;
}
