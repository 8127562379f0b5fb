// Lets one change at a time through to a volume's files, so that a request that is repeated while the first is still
// running waits for it and then finds its work done. Reads do not wait.

import { keyedLock } from "../base/keyed-lock.ts";
import type { StorageBackend } from "./backend.ts";

/** The same backend, whose changes to one volume run one after the other; a clone is a change to its target. */
export function oneAtATime(inner: StorageBackend): StorageBackend {
  const { run } = keyedLock();
  return {
    ...inner,
    create: (volume, sizeBytes) => run(volume, () => inner.create(volume, sizeBytes)),
    expand: (volume, sizeBytes) => run(volume, () => inner.expand(volume, sizeBytes)),
    remove: (volume) => run(volume, () => inner.remove(volume)),
    // What we ourselves write to the image is no use of it.
    attachedTo: (volume) => run(volume, () => inner.attachedTo(volume)),
    freeze: (volume, timeoutMs) => run(volume, () => inner.freeze(volume, timeoutMs)),
    snapshot: (volume, point) => run(volume, () => inner.snapshot(volume, point)),
    deletePoint: (volume, point) => run(volume, () => inner.deletePoint(volume, point)),
    clone: (from, to) => run(to.volume, () => inner.clone(from, to)),
    stage: (volume, ...how) => run(volume, () => inner.stage(volume, ...how)),
    openStaging: (volume, point, sizeBytes) => run(volume, () => inner.openStaging(volume, point, sizeBytes)),
    seal: (volume, point) => run(volume, () => inner.seal(volume, point)),
    quarantine: (image) => run(image.volume, () => inner.quarantine(image)),
  };
}
