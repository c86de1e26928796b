/** Reads preset files. */
import { parse } from "yaml";
import type { Failure } from "../../../../shared/contract/index.ts";
import type { ConfigRecord } from "../../../../shared/governance/configuration/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { isRecord } from "../../../../shared/governance/values.ts";

const unreadable = (message: string, details: string | null = null): Result<never, Failure> =>
  fail({
    code: "invalid_file",
    message,
    advice:
      "A preset is YAML or JSON: an object with plans, packs, rules, prices, estimates, alerts, settings.",
    details,
  });

/** A preset as the file has it; its content is checked record by record. */
export function readPreset(text: string): Result<ConfigRecord, Failure> {
  let content: unknown;
  try {
    // Aliases could make a small file endless.
    content = parse(text, { maxAliasCount: 0 });
  } catch (error) {
    return unreadable("The file is neither YAML nor JSON.", (error as Error).message.slice(0, 500));
  }
  if (!isRecord(content)) return unreadable("The file holds no preset.");
  const preset: ConfigRecord = content;
  if (!Array.isArray(preset["plans"]) || preset["plans"].length === 0)
    return unreadable("The file names no plan: it is no whole preset.");
  return ok(preset);
}
