// Block devices by their numbers, as the kernel writes them (`7:3`), which tell what a name in /dev may not.
import { readText } from "./durable-file.ts";
import { HostError } from "./host-error.ts";

/** Of `st_dev` or `st_rdev`, in the C library's form. */
export function renderDevice(number: number | bigint): string {
  const device = BigInt(number);
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

const sectorBytes = 512;

/** How large a block device is at this moment. */
export async function deviceBytes(number: string): Promise<number> {
  const sectors = await readText(`/sys/dev/block/${number}/size`);
  if (sectors === undefined) throw new HostError(`there is no block device ${number}`);
  return Number(sectors) * sectorBytes;
}
