/** `npm run sign-feed`: signs the feeds that electron-builder wrote, so that installed programs accept them. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { parse, stringify } from "yaml";

const HELP = `npm run sign-feed -- [DIR] [--key FILE] [--earlier VERSIONS] [--percentage N]

Signs each <channel>.yml in DIR (dist unless said), and keeps a copy under its version, so that one can go back to it.
Upload DIR to the server that electron-builder.config.ts names.

  --key FILE           the private key, PEM; read from UPDATE_SIGNING_KEY where not given
  --earlier VERSIONS   versions to go back to by hand, newest first, with commas: 1.1.0,1.0.3
  --percentage N       offered to so many of a hundred installations; raise it, sign and upload again
  --new-key FILE       makes a key pair: the private key into FILE, the public one into build/update-key.pem
  --help               this text
`;

function fail(sentence: string): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(2);
}

function readKey(file: string | undefined): KeyObject {
  const pem = file === undefined ? process.env.UPDATE_SIGNING_KEY : readFileSync(file, "utf8");
  if (!pem) return fail(`Name the private key with --key, or in UPDATE_SIGNING_KEY.\n\n${HELP}`);
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== "ed25519")
    return fail("The key is not an Ed25519 key: make one with --new-key.");
  return key;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    key: { type: "string" },
    earlier: { type: "string" },
    percentage: { type: "string" },
    "new-key": { type: "string" },
    help: { type: "boolean" },
  },
});
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (values["new-key"]) {
  if (existsSync(values["new-key"])) fail(`${values["new-key"]} is there already.`);
  const { privateKey } = generateKeyPairSync("ed25519");
  writeFileSync(values["new-key"], privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
  const publicPem = createPublicKey(privateKey).export({ type: "spki", format: "pem" });
  writeFileSync("build/update-key.pem", publicPem);
  process.stdout.write(`Keep ${values["new-key"]} secret. build/update-key.pem goes into the next build.\n`);
  process.exit(0);
}

const folder = positionals[0] ?? "dist";
const key = readKey(values.key);
const percentage = values.percentage === undefined ? null : Number(values.percentage);
if (percentage !== null && !(Number.isInteger(percentage) && percentage >= 0 && percentage <= 100))
  fail("--percentage is a whole number from 0 to 100.");
const feeds = readdirSync(folder).filter((name) => /^(latest|beta)(-[a-z0-9-]+)?\.yml$/.test(name));
if (feeds.length === 0) fail(`There is no feed in ${folder}: npm run package writes them.`);
for (const name of feeds) {
  const feed = parse(readFileSync(join(folder, name), "utf8")) as Record<string, unknown> & {
    version: string;
  };
  if (values.earlier !== undefined) feed["earlier"] = values.earlier.split(",").map((each) => each.trim());
  if (percentage !== null) feed["stagingPercentage"] = percentage;
  // One that is chosen by hand is for everybody who chooses it.
  const { stagingPercentage: _staged, ...whole } = feed;
  write(name, feed);
  write(name.replace(/^(latest|beta)/, feed.version), whole);
}

function write(name: string, feed: object): void {
  const text = stringify(feed);
  writeFileSync(join(folder, name), text);
  writeFileSync(
    join(folder, `${name}.sig`),
    `${sign(null, Buffer.from(text, "utf8"), key).toString("base64")}\n`,
  );
  process.stdout.write(`Signed ${name}.\n`);
}
