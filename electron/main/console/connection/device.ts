/** The name that the audit log has for the machine of an act. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { z } from "zod";
import type { Store } from "../../store/store.ts";

const id = z.string().regex(/^[0-9a-f]{8}$/);

/** The machine's name with a number of this console's own: two machines may have one name, and a name may change. */
export function deviceName(
  store: Pick<Store, "getSetting" | "setSetting">,
  name: string = hostname(),
): string {
  const kept = id.safeParse(store.getSetting("device"));
  const own = kept.success ? kept.data : randomBytes(4).toString("hex");
  if (!kept.success) store.setSetting("device", own);
  // It travels in a header.
  const plain = name.replaceAll(/[^!-~]/g, "").slice(0, 80);
  return `${plain || "console"} ${own}`;
}
