/** Files that are dropped anywhere on the window, or on the program's icon: Stripe's exports go to a new reconciliation. */
import { useEffect } from "react";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import { changeQuery, navigate, usePlace } from "../lib/router.ts";
import { showNotice } from "../ui/notices.tsx";

export function useDroppedFiles(client: ConsoleClient): void {
  const brought = usePlace().query.get("files");
  useEffect(() => {
    if (brought === null) return;
    changeQuery({ files: null });
    void takeBrought(client, brought.split(",").slice(0, 50));
  }, [client, brought]);
  useEffect(() => {
    const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const over = (event: DragEvent): void => {
      if (hasFiles(event)) event.preventDefault();
    };
    const drop = (event: DragEvent): void => {
      // A place that takes files itself has taken them.
      if (event.defaultPrevented || !hasFiles(event)) return;
      event.preventDefault();
      void take(client, [...(event.dataTransfer?.files ?? [])]);
    };
    window.addEventListener("dragover", over);
    window.addEventListener("drop", drop);
    return () => {
      window.removeEventListener("dragover", over);
      window.removeEventListener("drop", drop);
    };
  }, [client]);
}

/** Files that the program itself was given, by the ids that their address holds. */
async function takeBrought(client: ConsoleClient, ids: readonly string[]): Promise<void> {
  const { useUploads } = await import("../features/finance/uploads.ts");
  await useUploads.getState().addBrought(client, ids);
}

async function take(client: ConsoleClient, files: readonly File[]): Promise<void> {
  const exports = files.filter(({ name }) => /\.csv$/i.test(name));
  if (exports.length < files.length)
    showNotice("warning", "Not every file was taken", "Stripe's exports are CSV files; others are left out.");
  if (exports.length === 0) return;
  navigate("/finance/new");
  const { useUploads } = await import("../features/finance/uploads.ts");
  await useUploads.getState().add(client, exports);
}
