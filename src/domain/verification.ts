// How well stored bytes were compared with what the source had sent.

/**
 * `media`: read back past the page cache; `memory`: read back through it, where the file system allows nothing better or the
 * location asks for no more; `none`: not read back, because the location does not ask for it.
 */
export const verifications = ["media", "memory", "none"] as const;
export type Verification = (typeof verifications)[number];

/** The weakest of several; `undefined` of none. */
export function weakestOf(all: Iterable<Verification>): Verification | undefined {
  let weakest = -1;
  for (const each of all) weakest = Math.max(weakest, verifications.indexOf(each));
  return verifications[weakest];
}
