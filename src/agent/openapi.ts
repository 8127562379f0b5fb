// The OpenAPI 3.1 document, made of the table of routes and the very schemas that validate requests.
import * as memberSchemas from "../wire/member.ts";
import * as peerSchemas from "../wire/peer.ts";
import { problemMediaType } from "../wire/problem.ts";
import { agentRoutes, memberRoutes, peerRoutes, type Route } from "../wire/routes.ts";
import * as schemas from "../wire/schemas.ts";

type Schema = NonNullable<Route["body"]>;
type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** The same for the same version: it is committed as docs/openapi.json, and served at /v1/openapi.json. */
export function openApiDocument(version: string): Json {
  const routes: [string, Route][] = Object.entries({ ...agentRoutes, ...memberRoutes, ...peerRoutes });
  const paths: Record<string, Record<string, Json>> = {};
  for (const [id, route] of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(id, route) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "Longshore agent", version, description, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
    servers: [{ url: "https://{agent}", variables: { agent: { default: "127.0.0.1:7420" } } }],
    security: [{ mutualTLS: [] }],
    tags: [...new Set(routes.map(([, route]) => route.group))].map((name) => ({ name })),
    paths,
    components: {
      schemas: Object.fromEntries([...named()].map(([schema, name]) => [name, plain(schema, name)])),
      responses: { Problem: problemResponse() },
      securitySchemes: { mutualTLS: { type: "mutualTLS", description: trust } },
    },
  };
}

const description =
  "One agent of a storage cluster. Puts are idempotent under the client's names; a put or removal may carry If-Match " +
  "with the ETag it was decided on. Every failure is a problem document whose type is stable.";
const trust =
  "A client certificate with the URI name longshore://cluster/<uid>/<role>. Own operator and admin: everything but peer; " +
  "own csi: volumes and clones, and migrated volumes to read; own agent: jobs and member; agents of a consented cluster: " +
  "peer only.";

/** Schemas that are exported by name are referred to by it. */
function named(): Map<object, string> {
  const exported = Object.entries({ ...schemas, ...memberSchemas, ...peerSchemas });
  return new Map(
    exported
      .filter(([name, value]) => /^[A-Z]/.test(name) && typeof value === "object")
      .map(([name, value]) => [value as object, name]),
  );
}

function operation(id: string, route: Route): Json {
  return {
    operationId: id,
    summary: route.summary,
    tags: [route.group],
    parameters: [
      ...parameters("path", route.params),
      ...parameters("query", route.query),
      ...(route.conditional ? [header("If-Match", "The ETag the change was decided on", '^"\\d{1,15}"$')] : []),
      ...(route.events ? [header("Last-Event-ID", "Go on behind this event", "^\\d{1,15}$")] : []),
    ],
    ...(route.body && {
      requestBody: { required: true, content: { "application/json": { schema: plain(route.body) } } },
    }),
    responses: { ...successes(id, route), default: { $ref: "#/components/responses/Problem" } },
  };
}

function successes(id: string, route: Route): Record<string, Json> {
  if (route.events)
    return {
      200: { description: "Server-sent events", content: { "text/event-stream": { schema: plain(route.events) } } },
    };
  const none = { description: "Gone, now or before" };
  if (!route.response) return { 204: none };
  const body = (text: string) => jsonResponse(text, route.response as Schema);
  if (id === "removeSnapshot") return { 202: body("Released; the holds named keep it"), 204: none };
  if (route.method !== "PUT" || id === "putHold" || id === "putGroupSnapshot") return { 200: body("The answer") };
  const made = { 200: body("As it was, or changed"), 201: body("Made") };
  return id === "putClone" ? { ...made, 202: body("Waiting for the commit") } : made;
}

function jsonResponse(text: string, schema: Schema): Json {
  return { description: text, content: { "application/json": { schema: plain(schema) } } };
}

function problemResponse(): Json {
  return {
    description: "A problem document (RFC 9457)",
    content: { [problemMediaType]: { schema: plain(schemas.Problem) } },
  };
}

function parameters(where: "path" | "query", schema: Schema | undefined): Json[] {
  const { properties = {}, required = [] } = (schema ?? {}) as {
    properties?: Record<string, Schema>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, value]) => ({
    name,
    in: where,
    required: required.includes(name),
    schema: plain(value),
  }));
}

function header(name: string, text: string, pattern: string): Json {
  return { name, in: "header", required: false, description: text, schema: { type: "string", pattern } };
}

/** A schema as JSON: named ones become references, except the one being defined; tuples as OpenAPI 3.1 writes them. */
function plain(schema: unknown, defining?: string): Json {
  const names = named();
  const walk = (value: unknown): Json => {
    if (Array.isArray(value)) return value.map(walk);
    if (typeof value !== "object" || value === null) return value as Json;
    const name = names.get(value);
    if (name !== undefined && name !== defining) return { $ref: `#/components/schemas/${name}` };
    const entries = Object.entries(value).map(([key, inner]) => [key, walk(inner)] as const);
    return tupled(Object.fromEntries(entries));
  };
  return walk(schema);
}

function tupled(schema: Record<string, Json>): Json {
  if (!Array.isArray(schema.items)) return schema;
  const { items, additionalItems: _, ...rest } = schema;
  return { ...rest, prefixItems: items, items: false, maxItems: items.length };
}
