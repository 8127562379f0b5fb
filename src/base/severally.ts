// Work on many things, a few at a time.

/** Does the work on all of them, `atOnce` at a time, in order; throws the first failure when none of it is under way any more. */
export async function severally<T>(
  items: Iterable<T>,
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const waiting = [...items];
  const failures: unknown[] = [];
  let next = 0;
  const lane = async () => {
    while (next < waiting.length && failures.length === 0) {
      const item = waiting[next++] as T;
      try {
        await work(item);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  if (failures.length > 0) throw failures[0];
}
