/**
 * Asks router-insights: request logs over the Connect protocol, and everything else over typed REST.
 *
 * Runs in browsers and wherever there is `fetch`.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient, type Client, type Interceptor } from "@connectrpc/connect";
import { createConnectTransport, type ConnectTransportOptions } from "@connectrpc/connect-web";
import createFetchClient, { type Client as FetchClient } from "openapi-fetch";

import {
  CustomerRequestLogsService,
  type QueryRequestLogsRequestSchema,
  type RequestLog,
  RequestLogsService,
} from "./generated/agentrouter/insights/v1/request_logs_pb.js";
import type { paths } from "./generated/rest.js";

export { Code, ConnectError } from "@connectrpc/connect";
export * from "./generated/agentrouter/insights/v1/request_logs_pb.js";
export type { components, operations, paths } from "./generated/rest.js";

export interface Connection {
  /** The address of the service, such as `https://insights.example:8080`. */
  baseUrl: string;
  /** The key that is sent with every request. */
  apiKey: string;
}

export type LogsClient = Client<typeof RequestLogsService>;
export type CustomerLogsClient = Client<typeof CustomerRequestLogsService>;
export type RestClient = FetchClient<paths>;

type Options = Omit<ConnectTransportOptions, "baseUrl">;

/** Request logs and their statistics, over the Connect protocol. `options` are those of Connect's transport. */
export function createLogsClient(connection: Connection, options: Options = {}): LogsClient {
  return createClient(RequestLogsService, transportOf(connection, options));
}

/** The logs of the user to whom the key is restricted. */
export function createCustomerLogsClient(connection: Connection, options: Options = {}): CustomerLogsClient {
  return createClient(CustomerRequestLogsService, transportOf(connection, options));
}

/** Every route of the REST API, typed by its OpenAPI document: `client.GET("/v1/request-logs/stats", ...)`. */
export function createRestClient({ baseUrl, apiKey }: Connection): RestClient {
  return createFetchClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${apiKey}` } });
}

/** Every log that `query` matches, page by page. */
export async function* allLogs(
  client: LogsClient,
  query: MessageInitShape<typeof QueryRequestLogsRequestSchema> = {},
): AsyncGenerator<RequestLog> {
  let pageToken = query.pageToken ?? "";
  do {
    const page = await client.queryRequestLogs({ ...query, pageToken });
    yield* page.logs;
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
}

function transportOf({ baseUrl, apiKey }: Connection, options: Options) {
  const sendKey: Interceptor = (next) => (request) => {
    request.header.set("Authorization", `Bearer ${apiKey}`);
    return next(request);
  };
  const interceptors = [sendKey, ...(options.interceptors ?? [])];
  return createConnectTransport({ ...options, baseUrl, interceptors });
}
