/** Desktop notifications of the console's notices, each opening its screen, while nobody looks at the window and the person wants them. */
import { app, type BrowserWindow, Notification } from "electron";
import type { Notice, RailCounts, Settings } from "../../../shared/contract/index.ts";
import type { Dispatcher, Log } from "../console/dispatch.ts";

export function showNotices(
  dispatcher: Dispatcher,
  window: () => BrowserWindow | null,
  go: (place: string) => void,
  log: Log,
): void {
  async function show({ title, body, place }: Notice): Promise<void> {
    if (window()?.isFocused() || !Notification.isSupported()) return;
    const settings = await dispatcher.call("settings.get", {});
    if (!settings.ok || !(settings.value as Settings).notifications) return;
    const notification = new Notification({ title, body });
    notification.on("click", () => {
      const target = window();
      if (target?.isMinimized()) target.restore();
      target?.show();
      target?.focus();
      if (place) go(place);
    });
    notification.show();
  }
  dispatcher.follow("notices", {}, (notice) => {
    show(notice as Notice).catch((error: unknown) =>
      log(`error in a notification: ${(error as Error).message}`),
    );
  });
}

/** On the dock or the task bar: how much waits for somebody to act. */
export function showWaiting(dispatcher: Dispatcher): void {
  let shown = 0;
  dispatcher.follow("rail", {}, (counts) => {
    const { open_alerts: alerts, conflicts } = counts as Partial<RailCounts>;
    const waiting = (alerts ?? 0) + (conflicts ?? 0);
    if (waiting !== shown) app.setBadgeCount(waiting);
    shown = waiting;
  });
}
