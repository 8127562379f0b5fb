// What the names of a cluster's Services mean, from its Services and EndpointSlices. Pure.

export interface NamedService {
  readonly metadata: { readonly namespace?: string; readonly name: string };
  readonly spec: { readonly clusterIP?: string };
}

export interface Endpoints {
  readonly metadata: { readonly namespace?: string; readonly labels?: Readonly<Record<string, string>> };
  readonly endpoints?: readonly {
    readonly addresses: readonly string[];
    readonly hostname?: string;
    readonly conditions?: { readonly ready?: boolean };
  }[];
}

const suffix = ".svc.cluster.local";
const serviceLabel = "kubernetes.io/service-name";

/** The addresses of SERVICE.NAMESPACE.svc.cluster.local, or of one pod of it; `undefined` for a name that does not exist. */
export function addressesOf(
  name: string,
  services: readonly NamedService[],
  slices: readonly Endpoints[],
): readonly string[] | undefined {
  if (!name.endsWith(suffix)) return undefined;
  const labels = name.slice(0, -suffix.length).split(".");
  const [namespace, serviceName, hostname] = labels.reverse();
  if (serviceName === undefined || labels.length > 3) return undefined;
  const service = services.find(({ metadata }) => metadata.namespace === namespace && metadata.name === serviceName);
  if (service === undefined) return undefined;
  const isHeadless = service.spec.clusterIP === "None";
  if (!isHeadless) return hostname === undefined && service.spec.clusterIP ? [service.spec.clusterIP] : undefined;
  const addresses = slices
    .filter(({ metadata }) => metadata.namespace === namespace && metadata.labels?.[serviceLabel] === serviceName)
    .flatMap(({ endpoints }) => endpoints ?? [])
    .filter((endpoint) => endpoint.conditions?.ready !== false)
    .filter((endpoint) => hostname === undefined || endpoint.hostname === hostname)
    .flatMap((endpoint) => endpoint.addresses);
  return hostname !== undefined && addresses.length === 0 ? undefined : addresses;
}
