import { expect, test } from "@jest/globals";
import { openMetrics } from "./metrics.ts";

test("counters, gauges and histograms are rendered with their labels and values", async () => {
  const metrics = openMetrics();
  const jobs = metrics.counter("longshore_jobs_total", "Jobs", ["result"]);
  jobs.add({ result: "done" });
  jobs.add({ result: "done" }, 2);
  const lag = metrics.gauge("longshore_lag_seconds", "Lag", ["volume"]);
  lag.set(5, { volume: "a" });
  lag.set(7, { volume: "b" });
  lag.drop({ volume: "a" });
  metrics.histogram("longshore_stall_seconds", "Stall", [], [1, 2]).observe(1.5);
  const text = await metrics.render();
  expect(text).toContain('longshore_jobs_total{result="done"} 3');
  expect(text).toContain('longshore_lag_seconds{volume="b"} 7');
  expect(text).not.toContain('volume="a"');
  expect(text).toContain('longshore_stall_seconds_bucket{le="1"} 0');
  expect(text).toContain('longshore_stall_seconds_bucket{le="2"} 1');
});

test("a metric declared again is the same one, and two registries share nothing", async () => {
  const metrics = openMetrics();
  metrics.counter("longshore_jobs_total", "Jobs").add();
  metrics.counter("longshore_jobs_total", "Jobs").add();
  expect(await metrics.render()).toContain("longshore_jobs_total 2");
  expect(await openMetrics().render()).not.toContain("longshore_jobs_total");
});

test("a name declared as another type is refused", () => {
  const metrics = openMetrics();
  metrics.counter("longshore_jobs_total", "Jobs");
  expect(() => metrics.gauge("longshore_jobs_total", "Jobs")).toThrow("another type");
});
