import { ActionIcon, useComputedColorScheme } from "@mantine/core";
import type { EChartsType } from "echarts/core";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { saveFile, toCsv, type CsvValue } from "../lib/csv.ts";
import { capitalise } from "../lib/text.ts";
import { ChartIcon, DownloadIcon, TableIcon } from "../ui/icons.tsx";
import { dark, light, type Palette } from "../ui/tokens.ts";
import css from "./chart.module.css";
import type { ChartOption } from "./options.ts";

/** The figures behind a chart, for its table and its export. */
export interface ChartTable {
  readonly header: readonly string[];
  readonly rows: readonly (readonly CsvValue[])[];
  /** How a figure is shown in the table; the export has it exact. */
  readonly show?: (value: CsvValue, column: number) => string;
}

/**
 * The one host of every chart: a title that is the question it answers, the plot, its figures as a table, and
 * their export. `build` is pure and gets the theme's colours.
 */
export function Chart({
  title,
  build,
  table,
  fileName,
  tools,
  onPick,
}: {
  readonly title: string;
  readonly build: (palette: Palette) => ChartOption;
  readonly table: ChartTable;
  readonly fileName: string;
  readonly tools?: ReactNode;
  /** A mark, or its column, was clicked: its place on the category axis. */
  readonly onPick?: (index: number) => void;
}): ReactNode {
  const [asTable, setAsTable] = useState(false);
  return (
    <figure className={css.chart} style={{ margin: 0 }} aria-label={title}>
      <figcaption className={css.head}>
        <h2>{title}</h2>
        {tools}
        <ActionIcon
          aria-label={asTable ? "Show as chart" : "Show as table"}
          title={asTable ? "Show as chart" : "Show as table"}
          onClick={() => setAsTable(!asTable)}
        >
          {asTable ? <ChartIcon /> : <TableIcon />}
        </ActionIcon>
        <ActionIcon
          aria-label="Export as CSV"
          title="Export as CSV"
          onClick={() => saveFile(`${fileName}.csv`, "text/csv", toCsv(table.header, table.rows))}
        >
          <DownloadIcon />
        </ActionIcon>
      </figcaption>
      {asTable ? <FigureTable table={table} /> : <Plot build={build} label={title} onPick={onPick} />}
    </figure>
  );
}

function FigureTable({ table }: { readonly table: ChartTable }): ReactNode {
  return (
    <div className={css.table} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {table.header.map((name) => (
              // The unit of the export: what is shown has its own.
              <th key={name}>{table.show ? capitalise(name.replace(/ \(.*\)$/, "")) : name}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.toReversed().map((row, index) => (
            <tr key={String(row[0] ?? index)}>
              {row.map((value, column) => (
                <td key={table.header[column]}>{table.show ? table.show(value, column) : (value ?? "—")}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Plot({
  build,
  label,
  onPick,
}: {
  readonly build: (palette: Palette) => ChartOption;
  readonly label: string;
  readonly onPick: ((index: number) => void) | undefined;
}): ReactNode {
  const box = useRef<HTMLDivElement>(null);
  const [chart, setChart] = useState<EChartsType | null>(null);
  const [failed, setFailed] = useState(false);
  const scheme = useComputedColorScheme("light");
  const pick = useRef(onPick);
  useEffect(() => {
    pick.current = onPick;
  }, [onPick]);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    let made: EChartsType | null = null;
    let gone = false;
    const sizes = new ResizeObserver(() => made?.resize());
    import("./echarts.ts")
      .then(({ init }) => {
        if (gone) return;
        const plot = init(element, null, { renderer: "svg" });
        made = plot;
        // The whole column of a mark can be clicked: a small bar is hard to hit.
        const columnAt = ({
          offsetX: x,
          offsetY: y,
        }: {
          offsetX: number;
          offsetY: number;
        }): number | null => {
          if (!pick.current || !plot.containPixel("grid", [x, y])) return null;
          const [index] = plot.convertFromPixel({ xAxisIndex: 0, yAxisIndex: 0 }, [x, y]) as number[];
          return index !== undefined && Number.isFinite(index) ? Math.round(index) : null;
        };
        plot.getZr().on("click", (event) => {
          const index = columnAt(event);
          if (index !== null) pick.current?.(index);
        });
        plot.getZr().on("mousemove", (event) => {
          plot.getZr().setCursorStyle(columnAt(event) === null ? "default" : "pointer");
        });
        sizes.observe(element);
        setChart(made);
      })
      .catch(() => setFailed(true));
    return () => {
      gone = true;
      sizes.disconnect();
      made?.dispose();
      setChart(null);
    };
  }, []);
  useEffect(() => {
    chart?.setOption(build(scheme === "dark" ? dark : light), { notMerge: true, lazyUpdate: true });
  }, [chart, build, scheme]);
  return (
    <div className={css.plot}>
      <div ref={box} role="img" aria-label={label} />
      {failed ? (
        <p className={css.failed}>The chart could not be loaded; its table and export are there.</p>
      ) : null}
    </div>
  );
}
