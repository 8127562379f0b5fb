// Tells the person who waits what is being done: one line for each thing that takes longer than a moment.

const startMs = performance.now();

export function tell(text: string): void {
  const seconds = Math.round((performance.now() - startMs) / 1000);
  const time = `${String(Math.floor(seconds / 60)).padStart(3)}:${String(seconds % 60).padStart(2, "0")}`;
  process.stdout.write(`${time}  ${text}\n`);
}
