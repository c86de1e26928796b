/** Records of the configuration as the project answers them, and as the screen reads them. */
import { z } from "zod";
import {
  type ConfigItemRecord,
  configKind,
  configRecord,
  type Failure,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type Answer, type DeskContext, readThrough } from "../desk-context.ts";

export const version = z.looseObject({
  version_id: z.number().int(),
  kind: configKind,
  key: z.string(),
  version: z.number().int(),
  record: z.record(z.string(), z.unknown()),
  at: z.string(),
  by: z.string().nullable(),
  reason: z.string().nullable(),
  is_retired: z.boolean(),
});
export type Version = z.output<typeof version>;

export const configAnswer = z.looseObject({
  records: z.array(version),
  latest_version_id: z.number().int(),
  second_person_for: z.array(z.string()),
});

export const configId = ({ kind, key }: { readonly kind: string; readonly key: string }): string =>
  `${kind}:${key}`;

export const toConfigRecord = (each: Version): ConfigItemRecord => ({ ...each, id: configId(each) });

export const readConfiguration = (
  desk: DeskContext,
): Promise<Result<Answer<z.output<typeof configAnswer>>, Failure>> =>
  readThrough(desk, "configuration", "console_config", {}, configAnswer);

/** The record in the version that the operator saw; from the project where what is kept here has another. */
export async function findConfig(
  desk: DeskContext,
  profileId: string,
  id: string,
  wanted: number,
): Promise<Result<ConfigItemRecord, Failure>> {
  const find = (value: unknown): Version | undefined => {
    const parsed = configAnswer.safeParse(value);
    return parsed.success ? parsed.data.records.find((each) => configId(each) === id) : undefined;
  };
  const kept = find(desk.store.getSnapshot(profileId, "configuration")?.value);
  if (kept?.version === wanted) return ok(toConfigRecord(kept));
  const fresh = await readConfiguration(desk);
  const found = (fresh.ok ? find(fresh.value.value) : undefined) ?? kept;
  return found ? ok(toConfigRecord(found)) : fail(notThere(id));
}

export const notThere = (id: string): Failure => ({
  code: "not_found",
  message: `There is no ${id.replace(":", " ")}.`,
  advice: "It may have been retired: refresh the list.",
  details: null,
});

/** The record in the answer of an act. */
export const answeredConfig = (answer: unknown): ConfigItemRecord | null => {
  const parsed = version.safeParse(answer);
  return parsed.success ? configRecord.parse(toConfigRecord(parsed.data)) : null;
};
