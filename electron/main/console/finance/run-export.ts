/** A finished run as a file: CSV, JSON, a page or a workbook. */
import type { Failure, OperationOutput } from "../../../../shared/contract/index.ts";
import { type Difference, differencesCsv } from "../../../../shared/governance/reconciliation/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Store } from "../../store/store.ts";
import type { ChosenProject } from "../connection/link.ts";
import { reportPage } from "./exports-page.ts";
import { type Exported, reportSheets } from "./exports-report.ts";
import { writeWorkbook } from "./exports-workbook.ts";
import type { ReportHead } from "./messages.ts";
import { readClosedPeriod } from "./project-reads.ts";
import { noRun, notFinished } from "./run-failures.ts";

type ExportFormat = "csv" | "json" | "html" | "xlsx";
type ExportedFile = OperationOutput<"finance.export">;

const differencesAtOnce = 1_000;
const workbookType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

export async function exportRun(
  store: Store,
  project: ChosenProject,
  runId: string,
  format: ExportFormat,
): Promise<Result<ExportedFile, Failure>> {
  const stored = store.getRun(runId);
  if (!stored) return fail(noRun);
  if (stored.run.status !== "finished") return fail(notFinished);
  const report = stored.report as ReportHead;
  const differences = (): Generator<Difference> => allDifferences(store, runId);
  const name = `reconciliation-${stored.run.from ?? "start"}-${stored.run.to ?? "end"}`;
  const textFile = (media_type: string, text: string) =>
    ok({ file_name: `${name}.${format}`, media_type, text, encoding: "utf8" as const });
  const exported = async (): Promise<Exported> => ({
    run: stored.run,
    report,
    differences,
    closed: await readClosedPeriod(project, runId),
  });
  switch (format) {
    case "csv":
      return textFile("text/csv", [...differencesCsv(differences())].join(""));
    case "json":
      return textFile(
        "application/json",
        JSON.stringify({ ...report, differences: [...differences()] }, null, 2),
      );
    case "html":
      return textFile("text/html", reportPage(await exported()));
    case "xlsx": {
      const bytes = await writeWorkbook(reportSheets(await exported()));
      return ok({
        file_name: `${name}.xlsx`,
        media_type: workbookType,
        text: bytes.toString("base64"),
        encoding: "base64" as const,
      });
    }
  }
}

function* allDifferences(store: Store, runId: string): Generator<Difference> {
  for (let offset = 0; ; offset += differencesAtOnce) {
    const { differences } = store.pageDifferences(runId, null, offset, differencesAtOnce);
    yield* differences as Difference[];
    if (differences.length < differencesAtOnce) return;
  }
}
