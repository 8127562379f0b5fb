// Block devices by their numbers, as the kernel writes them (`7:3`), which tell what a name in /dev may not.

/** Of `st_dev` or `st_rdev`, in the C library's form. */
export function renderDevice(number: number | bigint): string {
  const device = BigInt(number);
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}
