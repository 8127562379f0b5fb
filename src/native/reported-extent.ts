// What a file system reports of a file's extents, in the terms of linux/fiemap.h.

/** Flags of a reported extent. */
export const extentFlags = {
  last: 0x1,
  unknown: 0x2,
  delayed: 0x4,
  encoded: 0x8,
  encrypted: 0x80,
  notAligned: 0x100,
  inline: 0x200,
  tail: 0x400,
  unwritten: 0x800,
  shared: 0x2000,
} as const;

/** A piece of a file and where it lies, as the file system reports it; in bytes, not always whole blocks. */
export interface ReportedExtent {
  readonly logical: number;
  readonly physical: number;
  readonly length: number;
  readonly flags: number;
}
