import { readFileSync } from "node:fs";
import type { Configuration } from "electron-builder";

/** The newest version's part of the changelog. */
function releaseNotes(): string {
  const changelog = readFileSync(new URL("CHANGELOG.md", import.meta.url), "utf8");
  return (changelog.split(/^## .*$/m)[1] ?? "").trim();
}

/**
 * Stripe's exports can be dropped on the icon and opened with the program, which is never made their first choice. On
 * Windows the icon takes files as it is; an association there would make it the first choice.
 */
const stripeExports = {
  ext: "csv",
  name: "CSV",
  mimeType: "text/csv",
  role: "Viewer",
  rank: "Alternate",
};

/**
 * Installers for Windows, macOS and Linux. Everything lies in app.asar, whose integrity the fuses hold: the built
 * processes, and what the local project needs (migrations, presets, its SQL). Native modules are unpacked beside it.
 */
const configuration: Configuration = {
  appId: "com.token-governance.console",
  productName: "Token Governance",
  copyright: "Copyright © 2026 Token Governance",
  directories: { output: "dist", buildResources: "build" },
  files: [
    "out/main/**",
    "out/preload/**",
    "out/renderer/**",
    "supabase/migrations/**",
    "supabase/presets/**",
    "supabase/prices/**",
    "local-project/*.sql",
    "package.json",
    // Whose feeds of newer versions are believed (npm run sign-feed -- --new-key FILE); without it none are fetched.
    "build/update-key.pem",
    "!**/*.map",
    "!**/*.{ts,tsx,md,tsbuildinfo}",
    // Workspaces, for other backends: the program has the sources in it.
    "!node_modules/@token-governance/**",
    // Large, and for other ways of running than this one.
    "!node_modules/@electric-sql/pglite/dist/**/*.cjs",
    "!node_modules/@electric-sql/pglite/src/**",
  ],
  extraResources: ["LICENSE", "THIRD-PARTY-NOTICES.txt"],
  // Links such as token-governance://users/42 open in the program.
  protocols: [{ name: "Token Governance", schemes: ["token-governance"] }],
  // Where newer versions are looked for; their feeds are signed by npm run sign-feed before they are put there.
  publish: {
    provider: "generic",
    url: process.env.UPDATE_URL ?? "https://updates.token-governance.example/",
    channel: process.env.UPDATE_CHANNEL === "beta" ? "beta" : "latest",
  },
  releaseInfo: { releaseNotes: releaseNotes() },
  asar: true,
  // The native modules are prebuilt for Node's stable interface.
  npmRebuild: false,
  electronLanguages: ["en-US"],
  electronFuses: {
    runAsNode: false,
    enableCookieEncryption: true,
    enableNodeOptionsEnvironmentVariable: false,
    enableNodeCliInspectArguments: false,
    enableEmbeddedAsarIntegrityValidation: true,
    onlyLoadAppFromAsar: true,
    loadBrowserProcessSpecificV8Snapshot: false,
    grantFileProtocolExtraPrivileges: false,
  },
  linux: {
    target: [{ target: "AppImage" }, { target: "deb" }],
    icon: "build/icons",
    category: "Development",
    executableName: "token-governance",
    // The task bar finds the window's icon by the name that package.json gives the .desktop file.
    syncDesktopName: true,
    fileAssociations: [stripeExports],
    maintainer: "Token Governance <support@token-governance.example>",
  },
  mac: {
    target: [{ target: "dmg" }, { target: "zip" }],
    icon: "build/icon.icns",
    category: "public.app-category.developer-tools",
    fileAssociations: [stripeExports],
    hardenedRuntime: true,
    gatekeeperAssess: false,
    entitlements: "build/entitlements.mac.plist",
    entitlementsInherit: "build/entitlements.mac.plist",
    // Signed and notarised where the certificate is: CSC_LINK and APPLE_* in the environment.
    notarize: Boolean(process.env.APPLE_ID || process.env.APPLE_API_KEY),
  },
  win: {
    target: [{ target: "nsis" }],
    icon: "build/icon.ico",
  },
  nsis: { oneClick: false, perMachine: false, allowToChangeInstallationDirectory: true },
};

export default configuration;
