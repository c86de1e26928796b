/**
 * Commands that move something: sent while there is a connection, and never guessed at. Where an answer is lost, the
 * command is looked up by its id as soon as the project answers again; one that never arrived is void from then on.
 */
import { z } from "zod";
import { type Failure, isReached, type Notice } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { ChosenProject } from "../connection/link.ts";
import type { DeskContext } from "../desk-context.ts";

/** A command that was sent and whose answer did not come. */
const doubt = z.object({ command_id: z.string(), what: z.string() });
type Doubt = z.infer<typeof doubt>;

const lookedUp = z.looseObject({ is_done: z.boolean(), answer: z.unknown() });

/** How long an answer is looked for before the screen shows that it is not known yet. */
const patienceMs = [250, 1_000, 3_000];

export type Commands = ReturnType<typeof createCommands>;

export function createCommands(desk: DeskContext, notify: (notice: Notice) => void) {
  const { connection, store } = desk;
  const settingOf = (profileId: string): string => `doubts.${profileId}`;
  const doubtsOf = (profileId: string): Doubt[] =>
    z.array(doubt).safeParse(store.getSetting(settingOf(profileId))).data ?? [];

  /** On their way now: looking one up would void it before it arrives. */
  const underWay = new Set<string>();

  function remember(profileId: string, one: Doubt): void {
    store.setSetting(settingOf(profileId), [...without(profileId, one.command_id), one]);
  }
  function without(profileId: string, commandId: string): Doubt[] {
    return doubtsOf(profileId).filter(({ command_id: id }) => id !== commandId);
  }
  function forget(profileId: string, commandId: string): void {
    store.setSetting(settingOf(profileId), without(profileId, commandId));
  }

  const lookUp = (backend: Pick<Backend, "rpc">, commandId: string) =>
    backend.rpc("console_command_outcome", { p_command_id: commandId }, lookedUp);

  /** Sends a command that moves something, once. */
  async function send<S extends z.ZodType>(
    rpcName: string,
    parameters: Readonly<Record<string, unknown>> & { readonly p_command_id: string },
    what: string,
    schema: S,
  ): Promise<Result<z.output<S>, Failure>> {
    const project = connection.current();
    const { profileId } = project;
    if (profileId === null || !isReached(connection.state().status)) return fail(needsConnection);
    const commandId = parameters.p_command_id;
    // Kept before it goes: after a crash it is known that it may have arrived.
    remember(profileId, { command_id: commandId, what });
    underWay.add(commandId);
    try {
      return await sendRemembered(project, profileId, rpcName, parameters, schema);
    } finally {
      underWay.delete(commandId);
    }
  }

  async function sendRemembered<S extends z.ZodType>(
    project: ChosenProject,
    profileId: string,
    rpcName: string,
    parameters: Readonly<Record<string, unknown>> & { readonly p_command_id: string },
    schema: S,
  ): Promise<Result<z.output<S>, Failure>> {
    const commandId = parameters.p_command_id;
    let answer = await project.rpc(rpcName, parameters, schema);
    for (const delayMs of patienceMs) {
      if (answer.ok || !isUnreachable(answer.error)) break;
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      // Where another project was chosen it is refused here, and looked up when this one is chosen again.
      const found = await lookUp(project, commandId);
      if (!found.ok) continue;
      const parsed = schema.safeParse(found.value.answer);
      // Done, but its answer is not understood here: it is looked up again, not reported as failed.
      if (found.value.is_done && !parsed.success) return fail(inDoubt);
      answer = found.value.is_done && parsed.success ? ok(parsed.data) : fail(notArrived);
    }
    if (!answer.ok && isUnreachable(answer.error)) return fail(inDoubt);
    forget(profileId, commandId);
    if (answer.ok) connection.wake();
    return answer;
  }

  return {
    send,

    /** Finds out what came of commands whose answer was lost, and tells the person. */
    async settleDoubts(profileId: string, backend: Backend): Promise<void> {
      for (const { command_id: commandId, what } of doubtsOf(profileId)) {
        if (underWay.has(commandId)) continue;
        const found = await lookUp(backend, commandId);
        if (!found.ok) return;
        forget(profileId, commandId);
        notify(
          found.value.is_done
            ? {
                level: "info",
                title: "Done",
                body: `${what}: it had arrived before the connection was lost.`,
              }
            : {
                level: "warning",
                title: "Not done",
                body: `${what}: it never arrived, and nothing was changed. Do it again if it is still right.`,
              },
        );
      }
    },
  };
}

const needsConnection: Failure = {
  code: "needs_connection",
  message: "This needs a connection to the project.",
  advice:
    "Tokens and plans are never changed from here while offline. Flags, blocks and notes are kept and sent later.",
  details: null,
};
const notArrived: Failure = {
  code: "not_arrived",
  message: "The connection was lost before this arrived: nothing was changed.",
  advice: "Do it again if it is still right.",
  details: null,
};
const inDoubt: Failure = {
  code: "in_doubt",
  message: "The connection was lost while this was on its way.",
  advice:
    "It is looked up by its id as soon as the project answers, and you will see what came of it. Do not repeat it.",
  details: null,
};
