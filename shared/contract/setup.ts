/** The first connection: a project is given the migrations and the configuration that govern it. */
import { z } from "zod";
import { nothing, operation, whole } from "./basics.ts";

/** Where a project's database answers. The password is used once: it is in no file, no log and no answer. */
const database = z
  .object({
    /** postgresql://user@host:port/database */
    address: z.string().trim().max(2_000),
    password: z.string().max(1_000),
    /** The server's certificate authority, as PEM; empty: those this machine trusts. */
    certificate: z.string().max(100_000).default(""),
    /** A person decided to go on although the server's certificate cannot be checked. */
    skips_certificate: z.boolean().default(false),
  })
  .strict();
export type DatabaseInput = z.output<typeof database>;

const presetChoice = z.object({
  name: z.string(),
  /** What it is for, from the first lines of its file. */
  description: z.string(),
  currency: z.string(),
  plans: z.array(z.object({ name: z.string(), monthly_allowance: whole.nullable() })),
  rules: whole,
});
export type PresetChoice = z.infer<typeof presetChoice>;

export const setupOperations = {
  /** What the migrations of this console make in a project, and where its database is likely to answer. */
  "setup.plan": operation(
    z.object({ url: z.string().trim().max(2_000) }).strict(),
    z.object({
      migrations: z.array(z.string()),
      makes: z.object({ functions: whole, tables: whole }),
      /** Supabase's usual address for this project, without a password; null where it cannot be known. */
      address: z.string().nullable(),
    }),
  ),
  /** Looks at the database, and changes nothing. */
  "setup.look": operation(
    database,
    z.object({
      server_version: z.string(),
      present: whole,
      missing: z.array(z.string()),
      /** Objects of the project's own under names that ours need. */
      in_the_way: z.array(z.string()),
    }),
  ),
  /** Applies what is missing, each migration whole or not at all. */
  "setup.apply": operation(database, z.object({ applied: z.array(z.string()) })),
  /** The same as one file for psql. */
  "setup.sql": operation(nothing, z.object({ name: z.string(), text: z.string() })),
  "setup.presets": operation(nothing, z.array(presetChoice)),
  /** Makes a preset the configuration of the open project; refused where it has one. */
  "setup.apply_preset": operation(
    z.object({ name: z.string().max(100) }).strict(),
    z.object({ name: z.string() }),
  ),
} as const;
