import { expect, test } from "@jest/globals";
import { parseUris } from "./debian.ts";

test("what apt would fetch is read with names, versions and digests", () => {
  const text = `'http://mirror/pool/main/d/dash/dash_0.5.12-2_amd64.deb' dash_0.5.12-2_amd64.deb 98000 SHA256:ab12
'http://mirror/pool/main/b/busybox/busybox_1.35.0-4%2bb1_amd64.deb' busybox_1%3a1.35.0-4+b1_amd64.deb 500000 MD5Sum:cd34
Reading package lists...

'http://mirror/pool/main/t/tzdata/tzdata_2026f-0_all.deb' tzdata_2026f-0_all.deb 300000 
`;
  expect(parseUris(text)).toEqual([
    { name: "dash", version: "0.5.12-2", file: "dash_0.5.12-2_amd64.deb", content: "98000 SHA256:ab12" },
    {
      name: "busybox",
      version: "1:1.35.0-4+b1",
      file: "busybox_1%3a1.35.0-4+b1_amd64.deb",
      content: "500000 MD5Sum:cd34",
    },
    { name: "tzdata", version: "2026f-0", file: "tzdata_2026f-0_all.deb", content: "300000" },
  ]);
});
