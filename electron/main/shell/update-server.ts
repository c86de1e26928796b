/** The server of newer versions, as the package names it (app-update.yml). */
import { parse as parseYaml } from "yaml";
import { z } from "zod";

const named = z.object({ url: z.url() });

/** Over the network by https alone; http is for a server on this machine. */
export function serverOf(yaml: string): URL {
  const { url } = named.parse(parseYaml(yaml));
  const base = new URL(url.endsWith("/") ? url : `${url}/`);
  const isHere = base.protocol === "http:" && base.hostname === "127.0.0.1";
  if (base.protocol !== "https:" && !isHere) throw new Error("Newer versions are fetched over https alone.");
  return base;
}
