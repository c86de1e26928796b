import { ActionIcon, Checkbox, Popover } from "@mantine/core";
import {
  columnResizingFeature,
  columnSizingFeature,
  columnVisibilityFeature,
  functionalUpdate,
  tableFeatures,
  type Updater,
  useTable,
} from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { useKeys } from "../lib/keys.ts";
import { recall, remember } from "../lib/remember.ts";
import css from "./data-table.module.css";
import { CopyAs } from "./copy-as.tsx";
import { ArrowDownIcon, ArrowUpIcon, ColumnsIcon } from "./icons.tsx";

export interface Column<T> {
  readonly id: string;
  readonly header: string;
  readonly cell: (row: T) => ReactNode;
  /** Least width in px, and share of what is free. */
  readonly width: number;
  readonly grow?: number;
  readonly align?: "right";
  /** Key to sort by, where the source can. */
  readonly sort?: string;
  /** Cannot be hidden. */
  readonly fixed?: boolean;
  /** Hidden until the person asks for it. */
  readonly hidden?: boolean;
  readonly hint?: string;
}

interface DataTableProps<T> {
  /** Names what is remembered: widths and columns. */
  readonly id: string;
  readonly label: string;
  readonly columns: readonly Column<T>[];
  readonly rows: readonly T[];
  readonly rowKey: (row: T) => string;
  readonly onOpen?: (row: T) => void;
  /** The row whose detail is open. */
  readonly openKey?: string | null;
  readonly sort?: { readonly key: string; readonly descending: boolean };
  readonly onSort?: (key: string, descending: boolean) => void;
  readonly empty?: ReactNode;
  readonly footer?: ReactNode;
  /** x on the row under the cursor. */
  readonly onPick?: (row: T) => void;
  /** j, k, arrows and Enter; one table on a screen has them. */
  readonly keys?: boolean;
  /** The rows answer an earlier question: they are dimmed, and the keys act on none of them. */
  readonly isWaiting?: boolean;
  /** Called when the person comes near the end. */
  readonly onEnd?: () => void;
  /** True while rows must not move: pointer over them, scrolled away from the top, or a row under the cursor. */
  readonly onHold?: (held: boolean) => void;
  /** Floats over the first rows ("12 new"). */
  readonly pill?: ReactNode;
  /** Raises to scroll to the top. */
  readonly toTop?: number;
  readonly rowHeight?: number;
  readonly columnMenu?: boolean;
  /** Grows with its rows instead of filling its parent. For short tables inside a page. */
  readonly fit?: boolean;
}

const features = tableFeatures({ columnVisibilityFeature, columnSizingFeature, columnResizingFeature });

type Widths = Readonly<Record<string, number>>;
type Visible = Readonly<Record<string, boolean>>;
const isRecordOf =
  <V,>(type: string) =>
  (value: unknown): value is Readonly<Record<string, V>> =>
    typeof value === "object" && value !== null && Object.values(value).every((each) => typeof each === type);

/**
 * A dense table: grid rows, virtualised, with a keyboard cursor, resizable and choosable columns that are remembered.
 * Sorting and paging are the source's business.
 */
export function DataTable<T extends object>(props: DataTableProps<T>): ReactNode {
  const { id, rows, rowKey, onHold, onEnd } = props;
  const rowHeight = props.rowHeight ?? 28;
  const columns = useColumns(props);
  const scrollRef = useRef<HTMLDivElement>(null);
  // oxlint-disable-next-line react/incompatible-library -- no compiler memoises this component
  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scrollRef.current,
    estimateSize: () => rowHeight,
    getItemKey: (index) => {
      const row = rows[index];
      return row ? rowKey(row) : index;
    },
    overscan: 12,
    scrollPaddingStart: 28,
  });
  const cursor = useCursor(props, {
    scrollTo: (index) => virtualizer.scrollToIndex(index, { align: "auto" }),
    pageRows: () => Math.max(1, Math.floor((scrollRef.current?.clientHeight ?? 300) / rowHeight) - 2),
    focus: () => scrollRef.current?.focus({ preventScroll: true }),
  });

  const [isPointed, setPointed] = useState(false);
  const [isScrolled, setScrolled] = useState(false);
  const held = isPointed || isScrolled || cursor.index > 0;
  useEffect(() => onHold?.(held), [onHold, held]);
  const isNearEnd = (box: HTMLElement): boolean =>
    box.scrollTop + box.clientHeight > box.scrollHeight - 12 * rowHeight;
  // Rows that do not fill the box cannot be scrolled: what follows them is asked for at once.
  const askedAt = useRef(0);
  useEffect(() => {
    const box = scrollRef.current;
    if (!box || rows.length === askedAt.current) return;
    askedAt.current = rows.length;
    if (rows.length > 0 && isNearEnd(box)) onEnd?.();
  });
  const { setKey } = cursor;
  useEffect(() => {
    if (!props.toTop) return;
    setKey(null);
    scrollRef.current?.scrollTo({ top: 0 });
  }, [props.toTop, setKey]);

  return (
    <div className={css.table} style={props.fit ? { flex: "none" } : undefined}>
      <div
        ref={scrollRef}
        className={css.scroll}
        role="grid"
        aria-label={props.label}
        aria-rowcount={rows.length}
        aria-busy={props.isWaiting ?? false}
        aria-activedescendant={cursor.index >= 0 ? `${id}-row-${cursor.key}` : undefined}
        tabIndex={0}
        style={
          {
            "--columns": columns.template,
            "--least-width": `${columns.leastWidth}px`,
            "--row-height": `${rowHeight}px`,
            ...(props.fit ? { maxHeight: 420, flex: "none" } : {}),
          } as React.CSSProperties
        }
        onScroll={(event) => {
          const box = event.currentTarget;
          setScrolled(box.scrollTop > 4);
          if (isNearEnd(box)) onEnd?.();
        }}
      >
        <Head {...props} shown={columns} />
        {rows.length === 0 ? (
          <div className={css.empty} role="row">
            <div role="gridcell">{props.empty}</div>
          </div>
        ) : (
          <div
            className={css.body}
            style={{ height: virtualizer.getTotalSize() }}
            onPointerEnter={(event) => event.pointerType === "mouse" && setPointed(true)}
            onPointerLeave={() => setPointed(false)}
          >
            {virtualizer.getVirtualItems().map(({ index, start }) => {
              const row = rows[index];
              return row ? (
                <Row
                  key={rowKey(row)}
                  {...props}
                  shown={columns}
                  cursor={cursor}
                  row={row}
                  index={index}
                  top={start}
                />
              ) : null;
            })}
          </div>
        )}
      </div>
      {props.pill ? <div className={css.pill}>{props.pill}</div> : null}
      {props.footer || props.columnMenu ? (
        <div className={css.footer}>
          <div className={css.footerText}>{props.footer}</div>
          <CopyAs list={() => scrollRef.current} />
          {props.columnMenu ? <ColumnMenu shown={columns} /> : null}
        </div>
      ) : null}
    </div>
  );
}

type Columns<T extends object> = ReturnType<typeof useColumns<T>>;

interface Kept {
  readonly id: string;
  readonly widths: Widths;
  readonly visible: Visible;
}

const readKept = <T extends object>(id: string, columns: readonly Column<T>[]): Kept => ({
  id,
  widths: recall(`table.${id}.widths`, {}, isRecordOf<number>("number")),
  visible: {
    ...Object.fromEntries(columns.filter((column) => column.hidden).map((column) => [column.id, false])),
    ...recall(`table.${id}.columns`, {}, isRecordOf<boolean>("boolean")),
  },
});

/** The columns as the person has them: which are shown, how wide, remembered by the table's id. */
function useColumns<T extends object>({ id, columns, rows, rowKey }: DataTableProps<T>) {
  const [last, setKept] = useState(() => readKept(id, columns));
  // The same table may go on as another, narrow beside a detail: each has columns of its own.
  const kept = last.id === id ? last : readKept(id, columns);
  if (kept !== last) setKept(kept);
  const { widths: columnSizing, visible: columnVisibility } = kept;
  const setColumnSizing = (next: Updater<Widths>): void =>
    setKept((before) => ({ ...before, widths: functionalUpdate(next, before.widths) }));
  const setColumnVisibility = (next: Updater<Visible>): void =>
    setKept((before) => ({ ...before, visible: functionalUpdate(next, before.visible) }));
  useEffect(() => {
    remember(`table.${kept.id}.widths`, kept.widths);
    remember(`table.${kept.id}.columns`, kept.visible);
  }, [kept]);

  const definitions = useMemo(
    () =>
      columns.map((column) => ({
        id: column.id,
        header: column.header,
        size: column.width,
        minSize: 40,
        maxSize: 900,
        enableHiding: !column.fixed,
      })),
    [columns],
  );
  const byId = useMemo(() => new Map(columns.map((column) => [column.id, column])), [columns]);
  const table = useTable({
    features,
    columns: definitions,
    data: rows as T[],
    getRowId: rowKey,
    columnResizeMode: "onChange" as const,
    state: { columnSizing, columnVisibility },
    onColumnSizingChange: setColumnSizing,
    onColumnVisibilityChange: setColumnVisibility,
  });
  const visible = table.getVisibleLeafColumns();
  const template = visible
    .map((column) => {
      const set = columnSizing[column.id];
      const own = byId.get(column.id);
      return set ? `${set}px` : `minmax(${own?.width ?? 80}px, ${own?.grow ?? 0.001}fr)`;
    })
    .join(" ");
  // Every row is as wide as the widest of them could need, so that all columns are below their headers.
  const leastWidth = visible.reduce(
    (sum, column) => sum + (columnSizing[column.id] ?? byId.get(column.id)?.width ?? 80),
    0,
  );
  const resetWidth = (columnId: string): void => {
    const { [columnId]: _, ...rest } = columnSizing;
    setColumnSizing(rest);
  };
  return { table, visible, byId, template, leastWidth, resetWidth };
}

type Cursor = ReturnType<typeof useCursor>;

/** The row that the keys act on. It is a row, not a position: rows that arrive above do not move it. */
function useCursor<T extends object>(
  { rows, rowKey, onOpen, openKey, onEnd, onPick, keys, isWaiting }: DataTableProps<T>,
  {
    scrollTo,
    pageRows,
    focus,
  }: {
    readonly scrollTo: (index: number) => void;
    readonly pageRows: () => number;
    readonly focus: () => void;
  },
) {
  const [key, setKey] = useState<string | null>(openKey ?? null);
  const [openedKey, setOpenedKey] = useState(openKey);
  if (openKey !== openedKey) {
    setOpenedKey(openKey);
    if (openKey) setKey(openKey);
  }
  const index = key === null ? -1 : rows.findIndex((row) => rowKey(row) === key);
  const moveTo = (to: number): boolean => {
    // Enter belongs to what has the focus: a person who came by a link would open the link again, not the row.
    focus();
    const target = Math.max(0, Math.min(rows.length - 1, to));
    const row = rows[target];
    if (!row) return false;
    setKey(rowKey(row));
    scrollTo(target);
    if (target >= rows.length - 5) onEnd?.();
    // With a detail open, moving is reading on.
    if (openKey && onOpen) onOpen(row);
    return true;
  };
  const withRow = (act: ((row: T) => void) | undefined) => (): boolean => {
    const row = rows[index];
    if (!row || !act) return false;
    act(row);
    return true;
  };
  useKeys(
    {
      j: () => moveTo(index + 1),
      k: () => moveTo(index < 0 ? 0 : index - 1),
      ArrowDown: () => moveTo(index + 1),
      ArrowUp: () => moveTo(index < 0 ? 0 : index - 1),
      PageDown: () => moveTo(index + pageRows()),
      PageUp: () => moveTo(index - pageRows()),
      Home: () => moveTo(0),
      End: () => moveTo(rows.length - 1),
      Enter: withRow(onOpen),
      x: withRow(onPick),
    },
    keys === true && isWaiting !== true,
  );
  return { key, setKey, index };
}

function Head<T extends object>({
  sort,
  onSort,
  shown: { table, byId, resetWidth },
}: DataTableProps<T> & { readonly shown: Columns<T> }): ReactNode {
  return (
    <div className={css.head} role="row">
      {table.getHeaderGroups()[0]?.headers.map((header) => {
        const column = byId.get(header.column.id);
        if (!column) return null;
        const sorted = sort && column.sort === sort.key ? sort : null;
        const Arrow = sorted?.descending ? ArrowDownIcon : ArrowUpIcon;
        return (
          <div
            key={header.id}
            role="columnheader"
            className={css.headCell}
            data-align={column.align}
            title={column.hint}
            aria-sort={sorted ? (sorted.descending ? "descending" : "ascending") : undefined}
          >
            {column.sort && onSort ? (
              <button
                type="button"
                onClick={() => onSort(column.sort as string, sorted ? !sorted.descending : true)}
              >
                {column.header}
                {sorted ? <Arrow size={12} /> : null}
              </button>
            ) : (
              <span>{column.header}</span>
            )}
            <div
              className={css.resize}
              onMouseDown={header.getResizeHandler()}
              onTouchStart={header.getResizeHandler()}
              onDoubleClick={() => resetWidth(column.id)}
            />
          </div>
        );
      })}
    </div>
  );
}

function Row<T extends object>({
  id,
  rowKey,
  onOpen,
  openKey,
  shown: { visible, byId },
  cursor,
  row,
  index,
  top,
}: DataTableProps<T> & {
  readonly shown: Columns<T>;
  readonly cursor: Cursor;
  readonly row: T;
  readonly index: number;
  readonly top: number;
}): ReactNode {
  const key = rowKey(row);
  return (
    <div
      id={`${id}-row-${key}`}
      role="row"
      aria-rowindex={index + 1}
      aria-selected={openKey === key}
      data-cursor={cursor.key === key || undefined}
      data-open={onOpen ? true : undefined}
      className={css.row}
      style={{ transform: `translateY(${top}px)` }}
      onClick={() => {
        cursor.setKey(key);
        onOpen?.(row);
      }}
    >
      {visible.map((column) => {
        const own = byId.get(column.id);
        return (
          <div key={column.id} role="gridcell" className={css.cell} data-align={own?.align}>
            {own?.cell(row)}
          </div>
        );
      })}
    </div>
  );
}

function ColumnMenu<T extends object>({ shown: { table, byId } }: { readonly shown: Columns<T> }): ReactNode {
  return (
    <Popover position="top-end">
      <Popover.Target>
        <ActionIcon aria-label="Choose columns" title="Choose columns">
          <ColumnsIcon />
        </ActionIcon>
      </Popover.Target>
      <Popover.Dropdown>
        <div style={{ display: "grid", gap: 6 }}>
          {table
            .getAllLeafColumns()
            .filter((column) => column.getCanHide())
            .map((column) => (
              <Checkbox
                key={column.id}
                label={byId.get(column.id)?.header}
                checked={column.getIsVisible()}
                onChange={(event) => column.toggleVisibility(event.currentTarget.checked)}
              />
            ))}
        </div>
      </Popover.Dropdown>
    </Popover>
  );
}
