// Readings that cost much and are wanted by many at once: everybody gets one that began after they asked, and no two run at a time.

/** Whoever asks while a reading runs waits for the next one, together with all others who do. */
export function sharedReading<T>(read: () => Promise<T>): () => Promise<T> {
  let running: Promise<unknown> = Promise.resolve();
  let next: Promise<T> | undefined;
  return () => {
    next ??= begin();
    return next;
  };

  function begin(): Promise<T> {
    const started = running.then(() => {
      // From here on it is too old for those who come later.
      next = undefined;
      return read();
    });
    // Those who wait for the next one are not concerned by the failure of this.
    running = started.then(
      () => undefined,
      () => undefined,
    );
    return started;
  }
}
