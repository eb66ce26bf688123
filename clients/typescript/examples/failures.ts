import { timestampDate } from "@bufbuild/protobuf/wkt";
import { allLogs, createLogsClient } from "@router-insights/client";

const logs = createLogsClient({
  baseUrl: process.env["INSIGHTS_API_URL"] ?? "http://localhost:8080",
  apiKey: process.env["INSIGHTS_API_KEY"] ?? "",
});

for await (const log of allLogs(logs, { status: "error" })) {
  const startedAt = log.timestamp && timestampDate(log.timestamp).toISOString();
  console.log(JSON.stringify([startedAt, log.modelName, log.userId, log.statusCode]));
}
