import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { promisify } from "node:util";

import { type DescMessage, fromJson, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import {
  allLogs,
  Code,
  ConnectError,
  createCustomerLogsClient,
  createLogsClient,
  createRestClient,
  GetRequestLogStatsResponseSchema,
  ListCustomerRequestLogsResponseSchema,
  type LogsClient,
  QueryRequestLogsResponseSchema,
  RequestLogSchema,
  RequestLogsService,
} from "@router-insights/client";

/** What `make clients` says about the running service. */
function setting(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set; run these tests by \`make clients\``);
  return value;
}

const connection = { baseUrl: setting("INSIGHTS_API_URL"), apiKey: setting("INSIGHTS_API_KEY") };
const stranger = { ...connection, apiKey: "ak-wrong" };
const rest = createRestClient(connection);

const grpcWeb = createClient(
  RequestLogsService,
  createGrpcWebTransport({
    baseUrl: connection.baseUrl,
    interceptors: [
      (next) => (request) => {
        request.header.set("Authorization", `Bearer ${connection.apiKey}`);
        return next(request);
      },
    ],
  }),
);
const clients: Record<string, LogsClient> = {
  JSON: createLogsClient(connection),
  binary: createLogsClient(connection, { useBinaryFormat: true }),
  "HTTP GET": createLogsClient(connection, { useHttpGet: true }),
  "gRPC-Web": grpcWeb,
};

/** An answer of REST, as any HTTP client gets it, as a message; REST shows more than the proto has. */
async function restMessage<Desc extends DescMessage>(schema: Desc, path: string): Promise<MessageShape<Desc>> {
  const headers = { Authorization: `Bearer ${connection.apiKey}` };
  const response = await fetch(connection.baseUrl + path, { headers });
  assert.equal(response.status, 200, path);
  return fromJson(schema, (await response.json()) as JsonValue, { ignoreUnknownFields: true });
}

function same<Desc extends DescMessage>(schema: Desc, got: MessageShape<Desc>, want: MessageShape<Desc>): void {
  assert.deepEqual(toJson(schema, got), toJson(schema, want));
}

async function refusal(answer: Promise<unknown>): Promise<ConnectError> {
  try {
    await answer;
  } catch (error) {
    return ConnectError.from(error);
  }
  assert.fail("was not refused");
}

for (const [form, client] of Object.entries(clients)) {
  describe(`the Connect client, ${form}`, () => {
    it("answers a query as REST does", async () => {
      const path = "/v1/request-logs?page_size=1000&min_duration_ms=100&order_by=duration_ms";
      const want = await restMessage(QueryRequestLogsResponseSchema, path);
      const got = await client.queryRequestLogs({ pageSize: 1000, minDurationMs: 100n, orderBy: "duration_ms" });
      same(QueryRequestLogsResponseSchema, got, want);
      assert.ok(want.logs.length > 0);
    });

    it("goes through all pages", async () => {
      const want = await restMessage(QueryRequestLogsResponseSchema, "/v1/request-logs?page_size=1000");
      const ids = [];
      for await (const log of allLogs(client, { pageSize: 30 })) ids.push(log.id);
      assert.deepEqual(ids, want.logs.map((log) => log.id));
    });

    it("shows one log as REST does", async () => {
      const { logs } = await client.queryRequestLogs({ pageSize: 5 });
      for (const { requestId } of logs) {
        const want = await restMessage(RequestLogSchema, `/v1/request-logs/${encodeURIComponent(requestId)}`);
        const { log } = await client.getRequestLog({ requestId });
        assert.ok(log);
        same(RequestLogSchema, log, want);
      }
    });

    it("gives the statistics of REST", async () => {
      const metrics = { model: "count", user: "cost", api_key: "latency", status: "errors", hour: "tokens", day: "cost" };
      for (const [groupBy, metric] of Object.entries(metrics)) {
        const path = `/v1/request-logs/stats?group_by=${groupBy}&metric=${metric}`;
        const want = await restMessage(GetRequestLogStatsResponseSchema, path);
        same(GetRequestLogStatsResponseSchema, await client.getRequestLogStats({ groupBy, metric }), want);
      }
    });

    it("tells what is wrong with a request", async () => {
      const bad = await refusal(client.queryRequestLogs({ pageSize: 5000 }));
      assert.equal(bad.code, Code.InvalidArgument);
      assert.match(bad.message, /page_size/);
      assert.equal(bad.details.length, 1);
      assert.equal((await refusal(client.getRequestLog({ requestId: "nobody's" }))).code, Code.NotFound);
      assert.equal((await refusal(client.getRequestLogStats({}, { timeoutMs: 1 }))).code, Code.DeadlineExceeded);
    });
  });
}

it("a key that is not known is refused", async () => {
  assert.equal((await refusal(createLogsClient(stranger).queryRequestLogs({}))).code, Code.Unauthenticated);
});

it("a customer gets the logs of their user", async () => {
  const customer = createCustomerLogsClient({ ...connection, apiKey: setting("INSIGHTS_CUSTOMER_KEY") });
  const path = `/v1/request-logs?user_id=${encodeURIComponent(setting("INSIGHTS_CUSTOMER"))}`;
  const want = await restMessage(ListCustomerRequestLogsResponseSchema, path);
  same(ListCustomerRequestLogsResponseSchema, await customer.listCustomerRequestLogs({}), want);
  assert.equal((await refusal(createCustomerLogsClient(connection).listCustomerRequestLogs({}))).code, Code.PermissionDenied);
});

describe("the REST client", () => {
  it("answers with types", async () => {
    const { data, error } = await rest.GET("/v1/request-logs", { params: { query: { page_size: 3 } } });
    assert.equal(error, undefined);
    const cost: string | null | undefined = data?.logs[0]?.cost;
    assert.equal(data?.logs.length, 3);
    assert.ok(cost === null || /^-?\d+\.\d{12}$/.test(cost ?? ""));
  });

  it("takes ids of any kind", async () => {
    const { data } = await rest.GET("/v1/request-logs", { params: { query: { page_size: 1 } } });
    const request_id = data?.logs[0]?.request_id ?? "";
    const one = await rest.GET("/v1/request-logs/{request_id}", { params: { path: { request_id } } });
    assert.equal(one.data?.request_id, request_id);
  });

  it("posts questions and events", async () => {
    const charts = await rest.POST("/api/public/v2/requests/analytics/custom-analytics", {
      body: { customCharts: [{ id: "c", chartType: "bar", metric: "count" }] },
    });
    assert.equal(charts.response.status, 200);
    const search = await rest.POST("/api/public/v2/requests/search", { body: {} });
    assert.equal(search.response.status, 200);
    const stats = await rest.GET("/v1/request-logs/stats", { params: { query: { group_by: "user" } } });
    assert.ok((stats.data?.stats.length ?? 0) > 0);
  });

  it("tells what is wrong with a request", async () => {
    const { error, response } = await rest.GET("/v1/request-logs", { params: { query: { page_size: 5000 } } });
    assert.equal(response.status, 400);
    assert.equal(error?.details[0]?.field, "page_size");
  });
});

describe("the example", () => {
  it("prints every request that failed", async () => {
    const path = "/v1/request-logs?page_size=1000&status=error";
    const want = await restMessage(QueryRequestLogsResponseSchema, path);
    const run = await promisify(execFile)("node", ["--import", "tsx", "examples/failures.ts"]);
    assert.equal(run.stdout.trim().split("\n").length, want.logs.length);
  });

  it("is the one of the README", async () => {
    const [page, example] = await Promise.all(["README.md", "examples/failures.ts"].map((file) => readFile(file, "utf8")));
    assert.ok(page?.includes(example ?? "no example"));
  });
});
