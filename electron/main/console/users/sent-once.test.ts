/** A connection that drops in the middle of an act: what came of it is found out by its id, and never guessed. */
import { describe, expect, it } from "vitest";
import { z } from "zod";
import type { Failure, Notice } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import type { DeskContext } from "../desk-context.ts";
import { createCommands } from "./sent-once.ts";

const lost: Failure = { code: "offline", message: "Lost.", advice: "Wait.", details: null };
const given = z.object({ given: z.number() });

/** A project whose line may drop before a command arrives, or after it was done. */
function bench(drops: { before?: boolean; after?: boolean; lookUps?: number }, status = "live") {
  const done = new Map<string, unknown>();
  const settings = new Map<string, unknown>();
  const notices: Notice[] = [];
  const sent: string[] = [];
  let missed = drops.lookUps ?? 0;
  const rpc = async (
    name: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: z.ZodType,
  ): Promise<Result<unknown, Failure>> => {
    const id = String(parameters["p_command_id"]);
    if (name === "console_command_outcome") {
      if (missed-- > 0) return fail(lost);
      return ok(schema.parse({ is_done: done.has(id), answer: done.get(id) ?? null }));
    }
    sent.push(id);
    if (drops.before) return fail(lost);
    done.set(id, { given: 5 });
    return drops.after ? fail(lost) : ok(schema.parse({ given: 5 }));
  };
  const desk = {
    connection: {
      current: () => ({ profileId: "p", rpc }),
      state: () => ({ status }),
      wake: () => undefined,
    },
    store: {
      getSetting: (key: string) => settings.get(key),
      setSetting: (key: string, value: unknown) => void settings.set(key, value),
    },
    operator: () => "anna",
  } as unknown as DeskContext;
  const commands = createCommands(desk, (notice) => notices.push(notice));
  return {
    send: () => commands.send("console_act", { p_command_id: "one" }, "Give tokens: u", given),
    settle: () => commands.settleDoubts("p", { rpc } as unknown as Backend),
    notices,
    sent,
    doubts: () => settings.get("doubts.p"),
  };
}

describe("an act whose connection drops", () => {
  it("after it was done is answered as done, though its answer never came", async () => {
    const { send, sent, doubts } = bench({ after: true });
    expect(await send()).toEqual(ok({ given: 5 }));
    expect(sent).toEqual(["one"]);
    expect(doubts()).toEqual([]);
  });

  it("before it arrived is answered as not done, and is not sent again by itself", async () => {
    const { send, sent } = bench({ before: true });
    expect(await send()).toMatchObject({ ok: false, error: { code: "not_arrived" } });
    expect(sent).toEqual(["one"]);
  });

  it.each([
    [{ after: true, lookUps: 3 }, "Done"],
    [{ before: true, lookUps: 3 }, "Not done"],
  ])(
    "for longer is in doubt until the project answers: %j",
    async (drops, title) => {
      const { send, settle, notices, sent, doubts } = bench(drops);
      expect(await send()).toMatchObject({ ok: false, error: { code: "in_doubt" } });
      expect(doubts()).toEqual([{ command_id: "one", what: "Give tokens: u" }]);
      await settle();
      expect(notices.map((notice) => notice.title)).toEqual([title]);
      expect(sent).toEqual(["one"]);
      expect(doubts()).toEqual([]);
      await settle();
      expect(notices).toHaveLength(1);
    },
    10_000,
  );

  it("is sent while the project is slow to answer", async () => {
    const { send, sent } = bench({}, "catching_up");
    expect(await send()).toEqual(ok({ given: 5 }));
    expect(sent).toEqual(["one"]);
  });

  it("is not sent at all while there is none, and says what is possible then", async () => {
    const { send, sent } = bench({}, "offline");
    const refused = await send();
    expect(refused).toMatchObject({ ok: false, error: { code: "needs_connection" } });
    expect(!refused.ok && refused.error.advice).toContain("Flags, blocks and notes are kept and sent later");
    expect(sent).toEqual([]);
  });
});
