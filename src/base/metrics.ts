// Metrics for Prometheus, behind an interface small enough that a part declares its metrics where it uses them.
import { Counter, Gauge, Histogram, Registry } from "prom-client";

type Labels = Readonly<Record<string, string>>;

export interface CounterMetric {
  /** Adds `by` (1 unless given) to the series of these labels. */
  add(labels?: Labels, by?: number): void;
}

export interface GaugeMetric {
  set(value: number, labels?: Labels): void;
  /** Forgets the series, for a thing that no longer exists. */
  drop(labels: Labels): void;
}

export interface HistogramMetric {
  observe(value: number, labels?: Labels): void;
}

/**
 * One registry. Declaring a name again returns the metric that exists, so two instances of a part share their series;
 * declaring it as another type throws.
 */
export interface Metrics {
  counter(name: string, help: string, labelNames?: readonly string[]): CounterMetric;
  gauge(name: string, help: string, labelNames?: readonly string[]): GaugeMetric;
  /** `buckets` are upper bounds in the unit of the name; prom-client's default fits request durations in seconds. */
  histogram(name: string, help: string, labelNames?: readonly string[], buckets?: readonly number[]): HistogramMetric;
  /** Everything in the Prometheus text format. */
  render(): Promise<string>;
  /** The content type of what {@link Metrics.render} gives. */
  readonly contentType: string;
}

export function openMetrics(): Metrics {
  const registry = new Registry();
  return {
    counter: (name, help, labelNames = []) => counterOf(registry, { name, help, labelNames: [...labelNames] }),
    gauge: (name, help, labelNames = []) => gaugeOf(registry, { name, help, labelNames: [...labelNames] }),
    histogram: (name, help, labelNames = [], buckets = undefined) =>
      histogramOf(registry, { name, help, labelNames: [...labelNames], ...(buckets && { buckets: [...buckets] }) }),
    render: () => registry.metrics(),
    contentType: registry.contentType,
  };
}

interface Declaration {
  readonly name: string;
  readonly help: string;
  readonly labelNames: string[];
  readonly buckets?: number[];
}

function counterOf(registry: Registry, declaration: Declaration): CounterMetric {
  const counter = known(registry, declaration.name, Counter) ?? new Counter({ ...declaration, registers: [registry] });
  return { add: (labels = {}, by = 1) => counter.inc(labels, by) };
}

function gaugeOf(registry: Registry, declaration: Declaration): GaugeMetric {
  const gauge = known(registry, declaration.name, Gauge) ?? new Gauge({ ...declaration, registers: [registry] });
  return { set: (value, labels = {}) => gauge.set(labels, value), drop: (labels) => gauge.remove(labels) };
}

function histogramOf(registry: Registry, declaration: Declaration): HistogramMetric {
  const histogram =
    known(registry, declaration.name, Histogram) ?? new Histogram({ ...declaration, registers: [registry] });
  return { observe: (value, labels = {}) => histogram.observe(labels, value) };
}

function known<M>(registry: Registry, name: string, type: new (...args: never[]) => M): M | undefined {
  const metric: unknown = registry.getSingleMetric(name);
  if (metric === undefined || metric instanceof type) return metric;
  throw new TypeError(`the metric ${name} was declared before as another type`);
}
