/** A table that is read page by page, with its loading, empty and error states. */
import type { UseInfiniteQueryResult } from "@tanstack/react-query";
import type { ComponentProps, ReactNode } from "react";
import { toFailure } from "../lib/console.tsx";
import { MoreRows, PlainTable } from "./plain-table.tsx";
import { ErrorView, FailureLine, Skeleton } from "./states.tsx";

export function PagedTable<Row>({
  query,
  skeletonLines,
  more,
  ...table
}: ComponentProps<typeof PlainTable<Row>> & {
  readonly query: Pick<
    UseInfiniteQueryResult<unknown, Error>,
    "data" | "error" | "refetch" | "hasNextPage" | "isFetchingNextPage" | "fetchNextPage"
  >;
  readonly skeletonLines: number;
  /** In place of "Show older". */
  readonly more?: ReactNode;
}): ReactNode {
  const retry = (): void => void query.refetch();
  if (query.data === undefined)
    return query.error ? (
      <ErrorView failure={toFailure(query.error)} onRetry={retry} />
    ) : (
      <Skeleton lines={skeletonLines} />
    );
  return (
    <div>
      {query.error ? <FailureLine failure={toFailure(query.error)} onRetry={retry} /> : null}
      <PlainTable {...table} />
      {more === undefined ? (
        <MoreRows
          shown={table.rows.length}
          hasMore={query.hasNextPage}
          isLoading={query.isFetchingNextPage}
          onMore={() => void query.fetchNextPage()}
        />
      ) : (
        more
      )}
    </div>
  );
}
