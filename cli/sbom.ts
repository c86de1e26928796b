/** `npm run sbom`: every part that is shipped, as CycloneDX. npm writes the list; what only builds and tests is left out. */
import { execFileSync } from "node:child_process";
import { repositoryDir } from "./build.ts";
import { shippedPackages } from "./licenses.ts";

interface Bom {
  components: { name: string; version: string; "bom-ref": string }[];
  dependencies: { ref: string; dependsOn: string[] }[];
}

const bom = JSON.parse(
  execFileSync("npm", ["sbom", "--sbom-format", "cyclonedx"], {
    cwd: repositoryDir,
    encoding: "utf8",
    maxBuffer: 100_000_000,
  }),
) as Bom;
const shipped = new Set(shippedPackages().map(({ name, version }) => `${name}@${version}`));
const components = bom.components.filter(({ name, version }) => shipped.has(`${name}@${version}`));
const refs = new Set(components.map((each) => each["bom-ref"]));
const dependencies = bom.dependencies
  .filter(({ ref }) => refs.has(ref))
  .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter((each) => refs.has(each)) }));
process.stdout.write(`${JSON.stringify({ ...bom, components, dependencies }, null, 2)}\n`);
