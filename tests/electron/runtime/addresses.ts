/**
 * A stock Chromium knows no scheme of an application. An address of one is a host of its own here, which no network
 * has: app://console/a is https://console.app.invalid/a in the page, and app://console/a everywhere else.
 */
interface Privileges {
  readonly standard?: boolean;
  readonly secure?: boolean;
}

const schemes = new Map<string, Privileges>();

export function registerScheme(scheme: string, privileges: Privileges = {}): void {
  schemes.set(scheme, privileges);
}

export function isRegistered(scheme: string): boolean {
  return schemes.has(scheme);
}

/** The address in the page of one of the application's own. */
export function inPage(url: string): string {
  const found = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(url);
  const privileges = found && schemes.get(found[1]?.toLowerCase() ?? "");
  if (!found || !privileges) return url;
  if (!privileges.standard)
    throw new Error(`${found[1]} is no standard scheme: the stand-in cannot show it.`);
  return `${privileges.secure ? "https" : "http"}://${found[2]}.${found[1]?.toLowerCase()}.invalid${found[3] || "/"}`;
}

/** The application's own address of one in the page; others stay as they are. */
export function inApp(url: string): string {
  return url.replace(
    /^(blob:)?https?:\/\/([^/?#]*)\.([a-z0-9+-]+)\.invalid(?=[/?#]|$)/i,
    (whole, blob: string | undefined, host, scheme: string) =>
      schemes.has(scheme) ? `${blob ?? ""}${scheme}://${host}` : whole,
  );
}
