/**
 * A workbook, written row by row into a zip: its memory does not grow with its rows. Made by hand because the libraries
 * that are kept up hold all rows at once. Format: ECMA-376, parts 1 (SpreadsheetML) and 2 (packaging).
 *
 * Text goes in as inline strings, which no spreadsheet runs, with "quote prefix", so that it stays text when a person
 * edits the cell.
 */
import { strToU8, Zip, ZipDeflate } from "fflate";
import { currencyExponent, formatMinor } from "../../../../shared/governance/money/index.ts";

export type WorkbookCell =
  | string
  | number
  | null
  | { readonly minor: number; readonly currency: string }
  | { readonly at: string }
  | { readonly bold: string };

export interface Sheet {
  readonly name: string;
  /** Widths of the columns, in characters. */
  readonly widths: readonly number[];
  /** The first row, in bold, that stays in sight; null where there is none. */
  readonly head: readonly string[] | null;
  readonly rows: () => Iterable<readonly WorkbookCell[]>;
}

/** Excel's own limits. */
const rowsOfExcel = 1_048_576;
const maxText = 32_767;
/** Rows written before others may have the thread for a while. */
const rowsAtOnce = 200;

/** The file's bytes, in pieces. */
export async function writeWorkbook(sheets: readonly Sheet[], maxRows = rowsOfExcel): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  let failure: Error | null = null;
  const zip = new Zip((error, piece) => {
    if (error) failure = error;
    else pieces.push(piece);
  });
  const add = (name: string, text: string): void => {
    const entry = new ZipDeflate(name, { level: 6 });
    zip.add(entry);
    entry.push(strToU8(text), true);
  };
  const names: string[] = [];
  for (const sheet of sheets) await addSheet(zip, sheet, names, maxRows);
  add("[Content_Types].xml", contentTypes(names.length));
  add("_rels/.rels", rootRelations);
  add("xl/workbook.xml", workbook(names));
  add("xl/_rels/workbook.xml.rels", workbookRelations(names.length));
  add("xl/styles.xml", styles);
  zip.end();
  if (failure) throw failure as Error;
  return Buffer.concat(pieces);
}

/** One sheet, or several where one cannot hold the rows. */
async function addSheet(zip: Zip, sheet: Sheet, names: string[], maxRows: number): Promise<void> {
  const rows = sheet.rows()[Symbol.iterator]();
  let next = rows.next();
  for (let part = 1; part === 1 || !next.done; part++) {
    names.push(part === 1 ? sheet.name : `${sheet.name} ${part}`);
    const entry = new ZipDeflate(`xl/worksheets/sheet${names.length}.xml`, { level: 6 });
    zip.add(entry);
    let waiting = sheetStart(sheet, names.length === 1);
    let row = 1;
    if (sheet.head)
      waiting += rowXml(
        row++,
        sheet.head.map((bold) => ({ bold })),
      );
    for (; !next.done && row <= maxRows; next = rows.next()) {
      waiting += rowXml(row++, next.value);
      if (row % rowsAtOnce !== 0) continue;
      entry.push(strToU8(waiting));
      waiting = "";
      await new Promise((resolve) => setImmediate(resolve));
    }
    const filter = sheet.head
      ? `<autoFilter ref="A1:${columnName(sheet.head.length - 1)}${Math.max(1, row - 1)}"/>`
      : "";
    entry.push(strToU8(`${waiting}</sheetData>${filter}${pageSetup}</worksheet>`), true);
  }
}

const xmlHead = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n';
const main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
const documents = "http://schemas.openxmlformats.org/officeDocument/2006";
const packages = "http://schemas.openxmlformats.org/package/2006";
const pageSetup =
  '<pageMargins left="0.5" right="0.5" top="0.6" bottom="0.6" header="0.3" footer="0.3"/><pageSetup paperSize="9" orientation="landscape" fitToWidth="1" fitToHeight="0"/>';

function sheetStart({ head, widths }: Sheet, isFirst: boolean): string {
  const pane = head
    ? '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/><selection pane="bottomLeft"/>'
    : "";
  const columns = widths
    .map((width, i) => `<col min="${i + 1}" max="${i + 1}" width="${width}" customWidth="1"/>`)
    .join("");
  return `${xmlHead}<worksheet xmlns="${main}"><sheetPr><pageSetUpPr fitToPage="1"/></sheetPr><sheetViews><sheetView workbookViewId="0"${isFirst ? ' tabSelected="1"' : ""} showGridLines="${head ? 1 : 0}">${pane}</sheetView></sheetViews><cols>${columns}</cols><sheetData>`;
}

const rowXml = (row: number, cells: readonly WorkbookCell[]): string =>
  `<row r="${row}">${cells.map((cell, column) => cellXml(`${columnName(column)}${row}`, cell)).join("")}</row>`;

function cellXml(place: string, cell: WorkbookCell): string {
  if (cell === null || cell === "") return "";
  if (typeof cell === "number") return `<c r="${place}" s="${STYLE.whole}"><v>${cell}</v></c>`;
  if (typeof cell === "string") return textXml(place, STYLE.text, cell);
  if ("bold" in cell) return textXml(place, STYLE.bold, cell.bold);
  if ("minor" in cell) {
    const style = MONEY_STYLES[currencyExponent(cell.currency)];
    return `<c r="${place}" s="${style}"><v>${formatMinor(cell.minor, cell.currency)}</v></c>`;
  }
  const moment = Date.parse(cell.at);
  // Days since 1899-12-30, in UTC.
  if (Number.isNaN(moment)) return textXml(place, STYLE.text, cell.at);
  return `<c r="${place}" s="${STYLE.time}"><v>${moment / 86_400_000 + 25_569}</v></c>`;
}

const textXml = (place: string, style: number, text: string): string =>
  `<c r="${place}" s="${style}" t="inlineStr"><is><t xml:space="preserve">${escapeXml(text.slice(0, maxText))}</t></is></c>`;

function escapeXml(text: string): string {
  return (
    text
      .toWellFormed()
      // What XML cannot hold, and what a spreadsheet would read as its own escape.
      // oxlint-disable-next-line no-control-regex
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "\ufffd")
      .replace(/_(?=x[0-9A-Fa-f]{4}_)/g, "_x005F_")
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll('"', "&quot;")
  );
}

function columnName(index: number): string {
  const letter = String.fromCharCode(65 + (index % 26));
  return index < 26 ? letter : columnName(Math.floor(index / 26) - 1) + letter;
}

/** Indexes into cellXfs below. */
const STYLE = { text: 1, bold: 2, whole: 3, time: 7 } as const;
/** By the digits of the currency's minor unit. */
const MONEY_STYLES = { 0: 4, 2: 5, 3: 6 } as const;

const styles = `${xmlHead}<styleSheet xmlns="${main}"><numFmts count="5"><numFmt numFmtId="164" formatCode="#,##0;[Red]\\-#,##0"/><numFmt numFmtId="165" formatCode="#,##0;[Red]\\-#,##0"/><numFmt numFmtId="166" formatCode="#,##0.00;[Red]\\-#,##0.00"/><numFmt numFmtId="167" formatCode="#,##0.000;[Red]\\-#,##0.000"/><numFmt numFmtId="168" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/></numFmts><fonts count="2"><font><sz val="11"/><name val="Calibri"/></font><font><b/><sz val="11"/><name val="Calibri"/></font></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="2"><border><left/><right/><top/><bottom/><diagonal/></border><border><left/><right/><top/><bottom style="thin"><color auto="1"/></bottom><diagonal/></border></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="8"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/><xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1" quotePrefix="1"/><xf numFmtId="49" fontId="1" fillId="0" borderId="1" xfId="0" applyNumberFormat="1" applyFont="1" applyBorder="1" quotePrefix="1"/>${[164, 165, 166, 167, 168].map((id) => `<xf numFmtId="${id}" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>`).join("")}</cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>`;

const sheetNumbers = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1);

const contentTypes = (count: number): string =>
  `${xmlHead}<Types xmlns="${packages}/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/>${sheetNumbers(
    count,
  )
    .map(
      (n) =>
        `<Override PartName="/xl/worksheets/sheet${n}.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>`,
    )
    .join("")}</Types>`;

const rootRelations = `${xmlHead}<Relationships xmlns="${packages}/relationships"><Relationship Id="rId1" Type="${documents}/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>`;

const workbook = (names: readonly string[]): string =>
  `${xmlHead}<workbook xmlns="${main}" xmlns:r="${documents}/relationships"><sheets>${names
    .map((name, i) => `<sheet name="${escapeXml(name.slice(0, 31))}" sheetId="${i + 1}" r:id="rId${i + 1}"/>`)
    .join("")}</sheets></workbook>`;

const workbookRelations = (count: number): string =>
  `${xmlHead}<Relationships xmlns="${packages}/relationships">${sheetNumbers(count)
    .map(
      (n) =>
        `<Relationship Id="rId${n}" Type="${documents}/relationships/worksheet" Target="worksheets/sheet${n}.xml"/>`,
    )
    .join(
      "",
    )}<Relationship Id="rId${count + 1}" Type="${documents}/relationships/styles" Target="styles.xml"/></Relationships>`;
