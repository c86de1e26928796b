/** What the window may never do, whatever its page tries: go elsewhere, open windows, ask for devices, load from outside. */
import { app, type Session, type WebContents } from "electron";
import { isAppUrl } from "./protocol.ts";

/** Copy buttons write text the person chose; nothing else is asked of the system. */
const allowedPermissions: ReadonlySet<string> = new Set(["clipboard-sanitized-write"]);

export function guardAllContents(): void {
  app.on("web-contents-created", (_event, contents) => guardContents(contents));
}

function guardContents(contents: WebContents): void {
  contents.setWindowOpenHandler(() => ({ action: "deny" }));
  const stay = (event: { preventDefault(): void; readonly url: string }): void => {
    if (!isAppUrl(event.url)) event.preventDefault();
  };
  contents.on("will-navigate", stay);
  contents.on("will-redirect", stay);
  contents.on("will-frame-navigate", stay);
  contents.on("will-attach-webview", (event) => event.preventDefault());
}

export function guardSession(session: Session): void {
  session.setPermissionRequestHandler((contents, permission, answer) =>
    answer(allowedPermissions.has(permission) && isAppUrl(contents.getURL())),
  );
  session.setPermissionCheckHandler(
    (_contents, permission, origin) => allowedPermissions.has(permission) && isAppUrl(origin),
  );
  session.setDevicePermissionHandler(() => false);
  session.setDisplayMediaRequestHandler((_request, answer) => answer({}));
  session.setUSBProtectedClassesHandler(() => []);
  session.webRequest.onBeforeRequest((details, answer) => {
    const isAllowed = isAppUrl(details.url) || /^(devtools|data|blob):/.test(details.url);
    answer({ cancel: !isAllowed });
  });
  session.on("will-download", (event, item) => {
    // Exports are made by the page itself, as blobs; nothing is fetched from outside.
    if (!item.getURL().startsWith("blob:app://console/") && !item.getURL().startsWith("data:"))
      event.preventDefault();
  });
}
