/** Callers that leave: what is not called then, what their reader gets, and what is held. */
import { describe, expect, it } from "vitest";
import { makeGuard, request, scriptedDatabase, wait } from "../../../tests/support/scripted-guard.ts";

const chunk = { choices: [{ delta: { content: "four" } }] };
const reason = new Error("the page was closed");

describe("a caller that leaves", () => {
  it("within the turns between the decision and the call is not called for", async () => {
    // At each turn of the microtask queue in which the answer travels, and some after.
    for (const way of ["run", "stream"] as const)
      for (let turns = 0; turns < 30; turns++) {
        const database = scriptedDatabase();
        const { guard } = makeGuard(database);
        const leaving = new AbortController();
        const answer = database.client.one.bind(database.client);
        database.client.one = (name, args) => {
          const reply = answer(name, args);
          if (name === "authorize_usage")
            void reply.then(async () => {
              for (let turn = 0; turn < turns; turn++) await Promise.resolve();
              leaving.abort(reason);
            });
          return reply;
        };
        let calledAfterLeaving = false;
        const asked = { ...request, signal: leaving.signal };
        const call = async () => {
          calledAfterLeaving ||= leaving.signal.aborted;
          return (async function* () {
            yield chunk;
          })();
        };
        const result = await (way === "run" ? guard.run(asked, call) : guard.stream(asked, call));
        expect([way, turns, calledAfterLeaving]).toEqual([way, turns, false]);
        if (result.ok) continue;
        expect(result.error).toMatchObject({ kind: "aborted", cause: reason });
        await guard.idle();
        expect([...database.held.values()]).toEqual(["released"]);
      }
  });

  it("gets its reason from the stream that it cut, at once, also where the source does not stop", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { chunkTimeoutMs: 60_000 });
    const leaving = new AbortController();
    const result = await guard.stream({ ...request, request_id: "s", signal: leaving.signal }, async () =>
      (async function* () {
        yield chunk;
        await new Promise(() => undefined);
      })(),
    );
    if (!result.ok) throw new Error(result.error.kind);
    const reader = result.value.value[Symbol.asyncIterator]();
    await reader.next();
    const waiting = reader.next();
    leaving.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(reader.next()).rejects.toBe(reason);
    await guard.idle();
    expect(database.held.get("s")).toBe("settled 6");
  });

  it("after the stream's end has the whole of it", async () => {
    const { guard } = makeGuard(scriptedDatabase());
    const leaving = new AbortController();
    const result = await guard.stream({ ...request, signal: leaving.signal }, async () =>
      (async function* () {
        yield chunk;
      })(),
    );
    if (!result.ok) throw new Error(result.error.kind);
    const seen: unknown[] = [];
    for await (const each of result.value.value) seen.push(each);
    leaving.abort(reason);
    await wait(1);
    expect(seen).toEqual([chunk]);
    expect(await result.value.value[Symbol.asyncIterator]().next()).toEqual({ done: true, value: undefined });
  });
});
