import { ActionIcon, Checkbox, Popover } from "@mantine/core";
import {
  columnResizingFeature,
  columnSizingFeature,
  columnVisibilityFeature,
  tableFeatures,
  useTable,
} from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useMemo, useRef, useState } from "react";
import { useKeys } from "../lib/keys.ts";
import { recall, remember } from "../lib/remember.ts";
import css from "./data-table.module.css";
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

export interface DataTableProps<T> {
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
  const { id, columns, rows, rowKey, onOpen, openKey, onHold, onEnd } = props;
  const rowHeight = props.rowHeight ?? 28;
  const [columnSizing, setColumnSizing] = useState<Widths>(() =>
    recall(`table.${id}.widths`, {}, isRecordOf<number>("number")),
  );
  const [columnVisibility, setColumnVisibility] = useState<Visible>(() => ({
    ...Object.fromEntries(columns.filter((column) => column.hidden).map((column) => [column.id, false])),
    ...recall(`table.${id}.columns`, {}, isRecordOf<boolean>("boolean")),
  }));
  useEffect(() => remember(`table.${id}.widths`, columnSizing), [id, columnSizing]);
  useEffect(() => remember(`table.${id}.columns`, columnVisibility), [id, columnVisibility]);

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
  // Every row is as wide as the widest of them could need, so that all columns stand under their heads.
  const leastWidth = visible.reduce(
    (sum, column) => sum + (columnSizing[column.id] ?? byId.get(column.id)?.width ?? 80),
    0,
  );

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

  // The cursor is a row, not a position: rows that arrive above do not move it.
  const [cursorKey, setCursorKey] = useState<string | null>(openKey ?? null);
  useEffect(() => {
    if (openKey) setCursorKey(openKey);
  }, [openKey]);
  const cursor = cursorKey === null ? -1 : rows.findIndex((row) => rowKey(row) === cursorKey);
  const moveTo = (index: number): boolean => {
    const target = Math.max(0, Math.min(rows.length - 1, index));
    const row = rows[target];
    if (!row) return false;
    setCursorKey(rowKey(row));
    virtualizer.scrollToIndex(target, { align: "auto" });
    if (target >= rows.length - 5) onEnd?.();
    // With a detail open, moving is reading on.
    if (openKey && onOpen) onOpen(row);
    return true;
  };
  const pageRows = (): number =>
    Math.max(1, Math.floor((scrollRef.current?.clientHeight ?? 300) / rowHeight) - 2);
  useKeys(
    {
      j: () => moveTo(cursor + 1),
      k: () => moveTo(cursor < 0 ? 0 : cursor - 1),
      ArrowDown: () => moveTo(cursor + 1),
      ArrowUp: () => moveTo(cursor < 0 ? 0 : cursor - 1),
      PageDown: () => moveTo(cursor + pageRows()),
      PageUp: () => moveTo(cursor - pageRows()),
      Home: () => moveTo(0),
      End: () => moveTo(rows.length - 1),
      Enter: () => {
        const row = rows[cursor];
        if (!row || !onOpen) return false;
        onOpen(row);
        return true;
      },
      x: () => {
        const row = rows[cursor];
        if (!row || !props.onPick) return false;
        props.onPick(row);
        return true;
      },
    },
    props.keys ?? false,
  );

  const [isPointed, setPointed] = useState(false);
  const [isScrolled, setScrolled] = useState(false);
  const held = isPointed || isScrolled || cursor > 0;
  useEffect(() => onHold?.(held), [onHold, held]);
  useEffect(() => {
    if (!props.toTop) return;
    setCursorKey(null);
    scrollRef.current?.scrollTo({ top: 0 });
  }, [props.toTop]);

  const activeId = cursorKey !== null && cursor >= 0 ? `${id}-row-${cursorKey}` : undefined;
  return (
    <div className={css.table} style={props.fit ? { flex: "none" } : undefined}>
      <div
        ref={scrollRef}
        className={css.scroll}
        role="grid"
        aria-label={props.label}
        aria-rowcount={rows.length}
        aria-activedescendant={activeId}
        tabIndex={0}
        style={
          {
            "--columns": template,
            "--least-width": `${leastWidth}px`,
            "--row-height": `${rowHeight}px`,
            ...(props.fit ? { maxHeight: 420, flex: "none" } : {}),
          } as React.CSSProperties
        }
        onScroll={(event) => {
          const box = event.currentTarget;
          setScrolled(box.scrollTop > 4);
          if (onEnd && box.scrollTop + box.clientHeight > box.scrollHeight - 12 * rowHeight) onEnd();
        }}
      >
        <div className={css.head} role="row">
          {table.getHeaderGroups()[0]?.headers.map((header) => {
            const column = byId.get(header.column.id);
            if (!column) return null;
            const sorted = props.sort && column.sort === props.sort.key ? props.sort : null;
            return (
              <div
                key={header.id}
                role="columnheader"
                className={css.headCell}
                data-align={column.align}
                title={column.hint}
                aria-sort={sorted ? (sorted.descending ? "descending" : "ascending") : undefined}
              >
                {column.sort && props.onSort ? (
                  <button
                    type="button"
                    onClick={() => props.onSort?.(column.sort as string, sorted ? !sorted.descending : true)}
                  >
                    {column.header}
                    {sorted ? (
                      sorted.descending ? (
                        <ArrowDownIcon size={12} />
                      ) : (
                        <ArrowUpIcon size={12} />
                      )
                    ) : null}
                  </button>
                ) : (
                  <span>{column.header}</span>
                )}
                <div
                  className={css.resize}
                  onMouseDown={header.getResizeHandler()}
                  onTouchStart={header.getResizeHandler()}
                  onDoubleClick={() => {
                    const { [column.id]: _, ...rest } = columnSizing;
                    setColumnSizing(rest);
                  }}
                />
              </div>
            );
          })}
        </div>
        {rows.length === 0 ? (
          <div className={css.empty}>{props.empty}</div>
        ) : (
          <div
            className={css.body}
            style={{ height: virtualizer.getTotalSize() }}
            onPointerEnter={(event) => event.pointerType === "mouse" && setPointed(true)}
            onPointerLeave={() => setPointed(false)}
          >
            {virtualizer.getVirtualItems().map((item) => {
              const row = rows[item.index];
              if (!row) return null;
              const key = rowKey(row);
              return (
                <div
                  key={key}
                  id={`${id}-row-${key}`}
                  role="row"
                  aria-rowindex={item.index + 1}
                  aria-selected={openKey === key}
                  data-cursor={cursorKey === key || undefined}
                  data-open={onOpen ? true : undefined}
                  className={css.row}
                  style={{ transform: `translateY(${item.start}px)` }}
                  onClick={() => {
                    setCursorKey(key);
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
            })}
          </div>
        )}
      </div>
      {props.pill ? <div className={css.pill}>{props.pill}</div> : null}
      {props.footer || props.columnMenu ? (
        <div className={css.footer}>
          <div className={css.footerText}>{props.footer}</div>
          {props.columnMenu ? (
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
          ) : null}
        </div>
      ) : null}
    </div>
  );
}
