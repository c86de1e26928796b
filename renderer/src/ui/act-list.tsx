/** Corrections that were made or proposed: of one user, or of one operator, each with its undo. */
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import type { AccountAct } from "../../../shared/contract/corrections.ts";
import { callOrThrow, useConsole } from "../lib/console.tsx";
import { placeAddress } from "../lib/router.ts";
import type { Column } from "./data-table.tsx";
import { SafeText, Tag, Time, UserName } from "./parts.tsx";
import { PagedTable } from "./paged-table.tsx";
import type { Tone } from "./theme.ts";
import { useActSentence } from "./act-sentence.ts";
import { DecideButtons, UndoButton } from "./correction-form.tsx";
import { translated } from "../lib/language.ts";
import css from "./correction.module.css";

const PAGE = 50;

const signs: Readonly<Record<AccountAct["status"], { readonly tone: Tone; readonly word: string }>> = {
  proposed: { tone: "amber", word: "waits for approval" },
  done: { tone: "green", word: "done" },
  rejected: { tone: "grey", word: "rejected" },
  undone: { tone: "grey", word: "undone" },
};

export function ActList({
  mine,
  userId,
  status,
}: {
  /** Only what the operator of this console did. */
  readonly mine: boolean;
  readonly userId: string | null;
  readonly status: AccountAct["status"] | null;
}): ReactNode {
  const client = useConsole();
  const sentence = useActSentence();
  const query = useInfiniteQuery({
    queryKey: ["users.acts", { mine, userId, status }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "users.acts", { mine, user_id: userId, status, before_id: pageParam, limit: PAGE }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
    refetchInterval: 10_000,
  });
  const rows = query.data?.pages.flatMap((page) => page.acts) ?? [];
  const operator = query.data?.pages[0]?.operator ?? "";
  const columns: readonly Column<AccountAct>[] = [
    { id: "at", header: "When", width: 92, cell: (act) => <Time at={act.created_at} /> },
    ...(userId === null
      ? [
          {
            id: "user",
            header: "User",
            width: 120,
            grow: 0.6,
            cell: (act: AccountAct) => (
              <a href={`#${placeAddress(["users", act.user_id])}`} title={act.user_id}>
                <UserName name={act.display_name} id={act.user_id} />
              </a>
            ),
          },
        ]
      : []),
    {
      id: "what",
      header: "What and why",
      width: 200,
      grow: 1,
      cell: (act) => (
        <span className={css.actLine}>
          <span>{sentence(act)}</span>
          <span className={css.quiet}>
            <SafeText text={act.reason} length={160} />
            {mine ? null : (
              <>
                {" "}
                — <SafeText text={act.operator} length={40} />
              </>
            )}
            {act.decided_by ? (
              <>
                , {act.status === "rejected" ? "rejected" : "approved"} by{" "}
                <SafeText text={act.decided_by} length={40} />
              </>
            ) : null}
          </span>
        </span>
      ),
    },
    {
      id: "status",
      header: "State",
      width: 104,
      cell: (act) => (
        <Tag tone={signs[act.status].tone} title={act.why === null ? undefined : translated(act.why)}>
          {signs[act.status].word}
        </Tag>
      ),
    },
    {
      id: "acts",
      header: "",
      width: 130,
      align: "right",
      cell: (act) =>
        act.status === "proposed" ? (
          <DecideButtons act={act} isMine={act.operator === operator} />
        ) : act.can_undo ? (
          <UndoButton act={act} />
        ) : null,
    },
  ];
  return (
    <PagedTable
      query={query}
      skeletonLines={6}
      label={mine ? "My acts, newest first" : "Acts, newest first"}
      columns={columns}
      rows={rows}
      rowKey={(act) => String(act.act_id)}
      empty={
        mine ? "You have not changed anything of a user yet." : "Nobody has changed anything of this account."
      }
    />
  );
}
