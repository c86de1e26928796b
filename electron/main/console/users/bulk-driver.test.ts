/** An act on many users is stopped, gone on with and undone while its steps travel: somebody always sends the next. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BulkAct, Failure } from "../../../../shared/contract/index.ts";
import { ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import type { ChosenProject } from "../connection/link.ts";
import type { DeskContext } from "../desk-context.ts";
import { createBulkDriver } from "./bulk-driver.ts";

type Change = "stop" | "go_on" | "undo";

/** A project with one act on five users, whose answers arrive only when they are let through. */
function bench() {
  const act = { status: "running", waiting: 5, done: 0 };
  const answers: (() => void)[] = [];
  let profile = "p";
  const read = (): BulkAct => {
    const { status, done } = act;
    return {
      bulk_id: 1,
      kind: "grant",
      status,
      done,
      accounts: 5,
      refused: 0,
      undone: 5 - done,
      operator: "anna",
    } as BulkAct;
  };
  const step = (): BulkAct => {
    if (act.status === "running" && act.waiting > 0) {
      act.waiting -= 1;
      act.done += 1;
    } else if (act.status === "undoing" && act.done > 0) act.done -= 1;
    if (act.status === "running" && act.waiting === 0) act.status = "done";
    if (act.status === "undoing" && act.done === 0) act.status = "undone";
    return read();
  };
  const rpc = (): Promise<Result<BulkAct, Failure>> => {
    const answer = ok(step());
    return new Promise((resolve) => answers.push(() => resolve(answer)));
  };
  const current = (): ChosenProject => {
    const profileId = profile;
    const isChosen = (): boolean => profile === profileId;
    return { profileId, isChosen, rpc: rpc as ChosenProject["rpc"], backend: () => null };
  };
  const desk = {
    connection: { profileId: () => profile, current, wake: () => undefined },
    operator: () => "anna",
  } as unknown as DeskContext;
  const driver = createBulkDriver(desk, () => undefined);
  const next: Record<Change, Readonly<Record<string, string>>> = {
    stop: { running: "stopped" },
    go_on: { stopped: "running" },
    undo: { stopped: "undoing", done: "undoing" },
  };
  const letThrough = async (): Promise<void> => {
    answers.shift()?.();
    await new Promise(setImmediate);
  };
  return {
    act,
    driver,
    answers,
    letThrough,
    start: () => driver.driveIfUnderWay(current(), read()),
    choose: (id: string) => void (profile = id),
    change: (what: Change): void => {
      const status = next[what][act.status];
      if (!status) return;
      act.status = status;
      driver.driveIfUnderWay(current(), read());
    },
    resume: () =>
      driver.resume("p", {
        rpc: async () => ok({ bulks: [read()], next_before_id: null }),
      } as unknown as Backend),
  };
}

describe("the steps of an act on many users", () => {
  it("are sent to the end by one sender, however its changes and the answers overtake one another", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom<Change | "answer">("stop", "go_on", "undo", "answer"), { maxLength: 30 }),
        async (moves) => {
          const { act, driver, answers, letThrough, start, change } = bench();
          start();
          for (const move of moves) {
            if (move === "answer") await letThrough();
            else change(move);
            expect(answers.length).toBeLessThanOrEqual(1);
          }
          while (answers.length > 0) await letThrough();
          expect(["stopped", "done", "undone"]).toContain(act.status);
          expect(driver.isDriving()).toBe(false);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("go on when their project is chosen again", async () => {
    const { act, answers, letThrough, start, choose, resume } = bench();
    await resume();
    choose("another");
    while (answers.length > 0) await letThrough();
    expect(act.status).toBe("running");
    choose("p");
    await resume();
    while (answers.length > 0) await letThrough();
    expect(act.status).toBe("done");
    start();
    expect(answers).toEqual([]);
  });
});
