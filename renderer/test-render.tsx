import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { type QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { render, type RenderResult } from "@testing-library/react";
import type { ReactNode } from "react";
import type { ConsoleClient } from "../shared/contract/client.ts";
import type { ConnectionState } from "../shared/contract/connection.ts";
import type { OperationName } from "../shared/contract/operations.ts";
import { ConsoleProvider, createQueryClient } from "./src/lib/console.tsx";
import { useLive } from "./src/lib/live.ts";

/** A console of a few answers, for looking at one part of the screen by itself. An unanswered call fails the test. */
export function answering(
  answers: Partial<Record<OperationName, (input: never) => unknown>>,
): ConsoleClient & { readonly asked: { readonly name: string; readonly input: unknown }[] } {
  const asked: { name: string; input: unknown }[] = [];
  return {
    asked,
    call: async (name, input) => {
      asked.push({ name, input });
      const answer = answers[name];
      if (!answer) throw new Error(`${name} was not expected`);
      return (await answer(input as never)) as never;
    },
    follow: () => () => {},
    onStatus(listener) {
      listener("open");
      return () => {};
    },
  };
}

/** As where the console says which project is open. */
export function openProject(id: string, profile: object = {}, project: object | null = null): void {
  const connection = { status: "live", profile: { profile_id: id, name: id, ...profile }, project };
  useLive.setState({ connection: connection as unknown as ConnectionState });
}

export function show(
  client: ConsoleClient,
  part: ReactNode,
  queries: QueryClient = createQueryClient(),
): RenderResult {
  return render(
    <MantineProvider env="test">
      <QueryClientProvider client={queries}>
        <ConsoleProvider client={client}>
          <Notifications />
          {part}
        </ConsoleProvider>
      </QueryClientProvider>
    </MantineProvider>,
  );
}
