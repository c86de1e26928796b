import { Button } from "@mantine/core";
import type { ReactNode } from "react";
import type { Column } from "./data-table.tsx";
import css from "./plain-table.module.css";

/** A short table inside a page: a true table, no scrolling of its own. Rows that open take the focus. */
export function PlainTable<T>({
  label,
  columns,
  rows,
  rowKey,
  onOpen,
  empty,
}: {
  readonly label: string;
  readonly columns: readonly Column<T>[];
  readonly rows: readonly T[];
  readonly rowKey: (row: T) => string;
  readonly onOpen?: (row: T) => void;
  readonly empty: ReactNode;
}): ReactNode {
  if (rows.length === 0)
    return (
      <div className={css.wrap}>
        <div className={css.none}>{empty}</div>
      </div>
    );
  return (
    <div className={css.wrap}>
      <table className={css.table} aria-label={label}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.id} data-align={column.align} title={column.hint}>
                {column.header}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr
              key={rowKey(row)}
              data-open={onOpen ? true : undefined}
              tabIndex={onOpen ? 0 : undefined}
              onClick={onOpen ? () => onOpen(row) : undefined}
              onKeyDown={
                onOpen
                  ? (event) => {
                      if (event.key === "Enter" && event.target === event.currentTarget) onOpen(row);
                    }
                  : undefined
              }
            >
              {columns.map((column) => (
                <td
                  key={column.id}
                  data-align={column.align}
                  data-nowrap={column.grow ? undefined : true}
                  style={column.width ? { minWidth: column.width } : undefined}
                >
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** "Show 50 more", or that this is all. */
export function MoreRows({
  shown,
  hasMore,
  isLoading,
  onMore,
}: {
  readonly shown: number;
  readonly hasMore: boolean;
  readonly isLoading: boolean;
  readonly onMore: () => void;
}): ReactNode {
  if (shown === 0) return null;
  return (
    <div className={css.more}>
      {hasMore ? (
        <Button onClick={onMore} loading={isLoading}>
          Show older
        </Button>
      ) : null}
      <span>
        {shown.toLocaleString("en")} shown{hasMore ? "" : ", that is all"}
      </span>
    </div>
  );
}
