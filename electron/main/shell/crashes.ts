/** What happens when a page or a process of Chromium ends by itself. */
import { app, dialog, type WebContents } from "electron";

type Report = (what: string, details: string) => void;

const recentMs = 60_000;
const mostInRecent = 3;
/** Of all windows together: one page that keeps ending is enough. */
const ended: number[] = [];

/** A page that ends is started again where the person was. One that keeps ending is not started for ever. */
export function bringBack(contents: WebContents, report: Report): void {
  contents.on("render-process-gone", (_event, { reason }) => {
    if (reason === "clean-exit") return;
    report("the page", reason);
    const now = Date.now();
    ended.push(now);
    if (ended.filter((at) => now - at < recentMs).length <= mostInRecent) contents.reload();
    else
      dialog.showErrorBox(
        "The console's page keeps ending",
        "Start the console again. What you did is kept. A report is in the log's folder (Help, Open the log).",
      );
  });
}

export function reportChildren(report: Report): void {
  app.on("child-process-gone", (_event, { type, reason }) => {
    if (reason !== "clean-exit") report(`a process of Chromium (${type})`, reason);
  });
}
