/** A project under attack, and what is thrown at it. */
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { expect } from "vitest";
import type { LocalProject } from "../../local-project/index.ts";

export interface Reply {
  readonly status: number;
  // The answers under attack have many shapes; each test names the keys it looks at.
  readonly body: Record<string, never> & { code?: string; hint?: string; message?: string };
}

/** A project and the means to attack it. Values are JSON text, so that what JavaScript cannot hold can be sent. */
export class Target {
  readonly project: LocalProject;
  readonly client: SupabaseClient;
  constructor(project: LocalProject) {
    this.project = project;
    this.client = createClient(project.url, project.serviceRoleKey, {
      auth: { persistSession: false, autoRefreshToken: false },
    });
  }

  async send(
    name: string,
    parameters: Readonly<Record<string, string>>,
    key = this.project.serviceRoleKey,
  ): Promise<Reply> {
    const body = `{${Object.entries(parameters)
      .map(([parameter, json]) => `${JSON.stringify(parameter)}:${json}`)
      .join(",")}}`;
    const response = await fetch(`${this.project.url}/rest/v1/rpc/${name}`, {
      method: "POST",
      headers: { apikey: key, authorization: `Bearer ${key}`, "content-type": "application/json" },
      body,
    });
    const text = await response.text();
    return { status: response.status, body: text === "" ? null : JSON.parse(text) };
  }

  /** Calls with plain values; throws where the project refuses. */
  async ask<Answer>(name: string, parameters: Record<string, unknown> = {}): Promise<Answer> {
    const { data, error, status } = await this.client.rpc(name, parameters);
    if (error)
      throw Object.assign(new Error(`${name}: ${error.message} (${error.code}; ${error.details})`), {
        code: error.code,
        status,
      });
    return data as Answer;
  }

  /** The SQLSTATE and hint that a call is refused with. */
  async refusal(
    name: string,
    parameters: Record<string, unknown>,
  ): Promise<{ status: number; code: string; hint: string }> {
    const { error, status } = await this.client.rpc(name, parameters);
    if (!error) throw new Error(`${name} was not refused`);
    return { status, code: error.code, hint: error.hint ?? "" };
  }

  /** A digest of all that the tables hold. */
  async digest(): Promise<string> {
    const tables = (
      await this.project.run(`select c.relname from pg_class c
      where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1`)
    ).map(([name]) => name);
    const parts = tables.map(
      (name) =>
        `(select md5(coalesce(string_agg(t::text, '|' order by t::text), '')) from governance.${name} t)`,
    );
    return (await this.project.run(`select ${parts.join(" || ")}`))[0]?.[0] ?? "";
  }

  async expectSoundLedger(): Promise<void> {
    const { problems } = await this.ask<{ problems: unknown[] }>("verify_ledger");
    expect(problems).toEqual([]);
  }
}

const MEGABYTE = "x".repeat(1 << 20);
/** As JSON text. */
export const hostile: Readonly<Record<string, string>> = {
  null: "null",
  "an empty text": '""',
  blanks: '"  \\t "',
  "2^53": "9007199254740992",
  "2^53 + 1": "9007199254740993",
  "2^63": "9223372036854775808",
  "-2^63": "-9223372036854775808",
  "-1": "-1",
  zero: "0",
  "a fraction": "1.5",
  "a huge exponent": "1e400",
  "the text NaN": '"NaN"',
  "the text Infinity": '"Infinity"',
  "the text -infinity": '"-infinity"',
  "a time before Christ": '"4713-01-01 00:00:00 BC"',
  "a far time": '"294276-12-31T23:59:59Z"',
  true: "true",
  "an array": '[1,"2",null]',
  "an object": '{"a":{"b":[]}}',
  "a megabyte": JSON.stringify(MEGABYTE),
  NUL: '"a\\u0000b"',
  "half a surrogate pair": '"\\ud800"',
  emoji: '"👩‍👩‍👧‍👦🏳️‍🌈"',
  "right to left": '"\\u202Eevil\\u202C"',
  quotes: `"'; drop table governance.accounts; -- \\" \\\\"`,
  format: '"%s%n%1$s $1 {0}"',
  "deep nesting": `${"[".repeat(4_000)}${"]".repeat(4_000)}`,
};
