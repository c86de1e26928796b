import { expect, it } from "vitest";
import { answering } from "../../../test-render.tsx";
import { useUploads } from "./uploads.ts";

it("takes a file once, however often and under whatever name it is chosen", async () => {
  let opened = 0;
  const upload = (id: string, received: number) => ({
    upload_id: id,
    file_name: "",
    size_bytes: 3,
    received_bytes: received,
    sha256: received === 3 ? "a9209f" : null,
  });
  const client = answering({
    "finance.open_upload": () => ({ ok: true, value: upload(String((opened += 1)), 0) }),
    "finance.upload_chunk": ({ upload_id: id }: { upload_id: string }) => ({
      ok: true,
      value: upload(id, 3),
    }),
  });
  const choose = async (name: string): Promise<void> =>
    useUploads.getState().add(client, [new File(["abc"], name)]);
  const shown = () => useUploads.getState().files.map(({ name, status }) => [name, status]);
  await choose("disputes.csv");
  await choose("disputes (1).csv");
  expect(shown()).toEqual([
    ["disputes.csv", "ready"],
    ["disputes (1).csv", "failed"],
  ]);
  expect(useUploads.getState().files[1]?.failure?.message).toBe("The same file is in the list already.");

  // Dropped, it can be chosen again.
  for (const { key } of useUploads.getState().files) useUploads.getState().drop(key);
  await choose("disputes.csv");
  expect(shown()).toEqual([["disputes.csv", "ready"]]);
});
