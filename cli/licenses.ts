/**
 * `npm run licenses`: writes THIRD-PARTY-NOTICES.txt, the name, version, licence and licence text of everything that the
 * installers carry: the packages that the main process loads and those bundled into the screens. `--check` compares.
 */
import { existsSync, globSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryDir } from "./build.ts";

interface Locked {
  readonly version: string;
  readonly license?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly os?: readonly string[];
}
interface Shipped {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  /** Its folder, from the repository's root. */
  readonly path: string;
}

/** Licences under which a program that is not open may be shipped, with their notices. */
const allowed =
  /^(MIT|MIT-0|ISC|0BSD|Apache-2\.0|BSD-[23]-Clause|BlueOak-1\.0\.0|Unlicense|CC0-1\.0|PostgreSQL|Python-2\.0)$/;

const noticesFile = join(repositoryDir, "THIRD-PARTY-NOTICES.txt");
const readJson = (file: string): unknown => JSON.parse(readFileSync(join(repositoryDir, file), "utf8"));

/** Everything that is shipped, by name. Electron's own parts are named in the files that it brings. */
export function shippedPackages(): Shipped[] {
  const { packages } = readJson("package-lock.json") as { packages: Readonly<Record<string, Locked>> };
  const manifest = readJson("package.json") as Locked;
  const found = new Map<string, Shipped>();
  const visit = (name: string, from: string): void => {
    // As Node looks for it: beside the one that asks, then in each folder above.
    let folder = from;
    while (folder !== "" && !(`${folder}/node_modules/${name}` in packages))
      folder = folder.slice(0, Math.max(folder.lastIndexOf("/node_modules/"), 0));
    const path = folder === "" ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    const locked = packages[path];
    if (!locked || found.has(path)) return;
    found.set(path, { name, version: locked.version, license: locked.license ?? "unknown", path });
    for (const each of Object.keys({ ...locked.dependencies, ...locked.optionalDependencies }))
      visit(each, path);
  };
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }))
    visit(name, "");
  for (const name of rendererImports()) visit(name, "");
  return [...found.values()].sort((one, other) => one.path.localeCompare(other.path, "en"));
}

/** The packages that the screens import. */
function rendererImports(): string[] {
  const names = new Set<string>();
  for (const file of globSync("renderer/src/**/*.{ts,tsx}", { cwd: repositoryDir })) {
    // The first programs are texts to paste: what they import is not shipped.
    if (/\.test\.tsx?$|first-programs\.ts$/.test(file)) continue;
    const text = readFileSync(join(repositoryDir, file), "utf8");
    for (const [, specifier = ""] of text.matchAll(/(?:from|import) "([^".][^"]*)"/g))
      names.add(
        specifier
          .split("/")
          .slice(0, specifier.startsWith("@") ? 2 : 1)
          .join("/"),
      );
  }
  return [...names];
}

const heading = ({ name, version, license }: Shipped): string => `== ${name} ${version} (${license})`;

/** What is wrong: packages that the file does not name, or names wrongly, and licences to ask about. */
export function noticeProblems(): string[] {
  const shipped = shippedPackages();
  const written = existsSync(noticesFile) ? readFileSync(noticesFile, "utf8") : "";
  const there = written.split("\n").filter((line) => line.startsWith("== "));
  const wanted = [...new Set(shipped.map(heading))];
  const problems = shipped
    .filter(({ license }) => !isAllowed(license))
    .map(({ name, license }) => `${name} is under ${license}: ask before it is shipped.`);
  if (there.join("\n") !== wanted.join("\n"))
    problems.push("THIRD-PARTY-NOTICES.txt does not name what is shipped: run `npm run licenses`.");
  return problems;
}

/** Of several to choose from, one will do. */
function isAllowed(license: string): boolean {
  const names = license.replaceAll(/[()]/g, "");
  return names.includes(" OR ")
    ? names.split(" OR ").some((one) => allowed.test(one))
    : names.split(" AND ").every((one) => allowed.test(one));
}

function licenseText({ path }: Shipped): string {
  const folder = join(repositoryDir, path);
  if (!existsSync(folder)) return "Its text is that of the package it belongs to; it is not installed here.";
  const file = readdirSync(folder).find(
    (name) => /^(licen[cs]e|copying)/i.test(name) && !/\.(c?js|ts|html)$/.test(name),
  );
  return file ? readFileSync(join(folder, file), "utf8").trim() : "It comes without a licence file.";
}

if (import.meta.main) {
  if (!process.argv.includes("--check")) {
    const seen = new Set<string>();
    const parts = shippedPackages()
      .filter((each) => !seen.has(heading(each)) && seen.add(heading(each)))
      .map(
        (each) =>
          `${heading(each)}\n\n${licenseText(each).replaceAll("\r\n", "\n").replaceAll(/^== /gm, "=  ")}\n`,
      );
    writeFileSync(
      noticesFile,
      `Software of others that the installers of Token Governance carry. Electron and Chromium come with files of their
own: LICENSE.electron.txt and LICENSES.chromium.html. Written by \`npm run licenses\`.

${parts.join("\n")}`,
    );
    console.log(`${parts.length} packages are named in THIRD-PARTY-NOTICES.txt.`);
  }
  const problems = noticeProblems();
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
