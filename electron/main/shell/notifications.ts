/** Desktop notifications of a project's notices, each opening its screen, while nobody looks at it and the person wants them. */
import { Notification } from "electron";
import {
  type Notice,
  noticeTitle,
  type RailCounts,
  type Settings,
  waitingOf,
} from "../../../shared/contract/index.ts";
import { translated } from "../../../shared/language/index.ts";
import type { Console } from "../console/console.ts";
import type { Dispatcher, Log } from "../console/dispatch.ts";

interface NoticesOptions {
  /** Whether a window of the project is looked at. */
  readonly isSeen: () => boolean;
  /** Whether other projects are open too: then the project is named. */
  readonly isOneOfSeveral: () => boolean;
  readonly open: (place: string | undefined) => void;
  readonly log: Log;
}

export function showNotices(
  { dispatcher, project }: Pick<Console, "dispatcher" | "project">,
  { isSeen, isOneOfSeveral, open, log }: NoticesOptions,
): void {
  async function show({ title, about, body, place }: Notice): Promise<void> {
    if (isSeen() || !Notification.isSupported()) return;
    const settings = await dispatcher.call("settings.get", {});
    if (!settings.ok || !(settings.value as Settings).notifications) return;
    const name = isOneOfSeveral() ? project()?.name.slice(0, 60) : undefined;
    const words = noticeTitle(translated(title), about);
    const notification = new Notification({
      title: name ? `${name}: ${words}` : words,
      body: translated(body),
    });
    notification.on("click", () => open(place));
    notification.show();
  }
  dispatcher.follow("notices", {}, (notice) => {
    show(notice as Notice).catch((error: unknown) =>
      log(`error in a notification: ${(error as Error).message}`),
    );
  });
}

/** How much of a project waits for somebody to act: on the dock or the task bar. */
export function showWaiting(dispatcher: Dispatcher, show: (count: number) => void): void {
  let shown = 0;
  dispatcher.follow("rail", {}, (counts) => {
    const waiting = waitingOf(counts as Partial<RailCounts>);
    if (waiting !== shown) show(waiting);
    shown = waiting;
  });
}
