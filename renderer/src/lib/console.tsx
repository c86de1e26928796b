import {
  keepPreviousData,
  QueryClient,
  useQueries,
  useQuery,
  type UseQueryOptions,
  type UseQueryResult,
} from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useState } from "react";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import type { Failure } from "../../../shared/contract/basics.ts";
import type { OperationInput, OperationName, OperationOutput } from "../../../shared/contract/operations.ts";

/** A failure that came back as a value, carried through TanStack Query as its error. */
export class CallError extends Error {
  readonly failure: Failure;
  constructor(failure: Failure) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Any thrown value as a failure: a transport may throw what no operation does. */
export function toFailure(error: unknown): Failure {
  if (error instanceof CallError) return error.failure;
  return {
    code: "unexpected",
    message: "Something went wrong that the console did not expect.",
    advice: "Try again. If it stays, copy the details into a ticket.",
    details: error instanceof Error ? (error.stack ?? error.message) : String(error),
  };
}

const ClientContext = createContext<ConsoleClient | null>(null);

export function ConsoleProvider({
  client,
  children,
}: {
  readonly client: ConsoleClient;
  readonly children: ReactNode;
}): ReactNode {
  return <ClientContext value={client}>{children}</ClientContext>;
}

export function useConsole(): ConsoleClient {
  const client = useContext(ClientContext);
  if (!client) throw new Error("useConsole needs a ConsoleProvider above it");
  return client;
}

/** Calls an operation; a failure is thrown as {@link CallError}, for TanStack Query. */
export async function callOrThrow<N extends OperationName>(
  client: ConsoleClient,
  name: N,
  input: OperationInput<N>,
): Promise<OperationOutput<N>> {
  const result = await client.call(name, input);
  if (!result.ok) throw new CallError(result.error);
  return result.value;
}

interface CallOptions {
  readonly enabled?: boolean;
  /** Asks again so often while the window is looked at. */
  readonly refetchMs?: number | false;
  /** Keep showing the answer to the previous input until the new one is there. */
  readonly keepPrevious?: boolean;
  /** How long an answer counts as fresh. */
  readonly staleMs?: number;
}

/** An operation as a query. The old answer stays while a new one is fetched, and when fetching fails. */
export function useCall<N extends OperationName>(
  name: N,
  input: OperationInput<N>,
  options: CallOptions = {},
): UseQueryResult<OperationOutput<N>, Error> {
  return useQuery(asQuery(useConsole(), name, input, options));
}

/**
 * What the shown answer was asked with: while `keepPrevious` still shows the answer to the question before, that
 * question. Words about an answer come from here, or new words would be shown over old figures.
 */
export function useAnswered<T>(query: { readonly isPlaceholderData: boolean }, asked: T): T {
  const [answered, setAnswered] = useState(asked);
  if (query.isPlaceholderData) return answered;
  if (JSON.stringify(answered) !== JSON.stringify(asked)) setAnswered(asked);
  return asked;
}

/**
 * An answer counts for the question that it was asked with: once something else is typed, there is none to it yet. What
 * came of another address or key must not speak for the one in the form.
 */
export function useAnswerTo<T>(question: unknown): readonly [T | null, (answer: T | null) => void] {
  const asked = JSON.stringify(question);
  const [last, setLast] = useState<{ readonly asked: string; readonly answer: T | null } | null>(null);
  return [last?.asked === asked ? last.answer : null, (answer) => setLast({ asked, answer })];
}

/** The same operation with several inputs, each a query of its own, in their order. */
export function useCalls<N extends OperationName>(
  name: N,
  inputs: readonly OperationInput<N>[],
  options: CallOptions = {},
): readonly UseQueryResult<OperationOutput<N>, Error>[] {
  const client = useConsole();
  return useQueries({ queries: inputs.map((input) => asQuery(client, name, input, options)) });
}

function asQuery<N extends OperationName>(
  client: ConsoleClient,
  name: N,
  input: OperationInput<N>,
  options: CallOptions,
): UseQueryOptions<OperationOutput<N>, Error> {
  return {
    queryKey: [name, input],
    queryFn: () => callOrThrow(client, name, input),
    enabled: options.enabled ?? true,
    refetchInterval: options.refetchMs ?? false,
    staleTime: options.staleMs ?? 2000,
    ...(options.keepPrevious ? { placeholderData: keepPreviousData as never } : {}),
  };
}

export function createQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      // The console retries and answers from its store by itself; asking again here would only hide its answer.
      queries: { retry: false, refetchOnWindowFocus: false, networkMode: "always", gcTime: 10 * 60_000 },
      mutations: { retry: false, networkMode: "always" },
    },
  });
}
