// Asks each question once with the TypeScript client of openapi-generator.
import {
  AcceptedEventsToJSON, Configuration, CustomAnalyticsAnswerToJSON, CustomAnalyticsQueryFromJSON, EventsApi,
  ExplainedLogToJSON, GroupBy, LogPageToJSON, OrderBy, RequestAnalyticsApi, RequestEventFromJSON, RequestLogsApi,
  SearchAnswerToJSON, SearchQueryFromJSON, StatsAnswerToJSON, StatsMetric,
} from './client';

async function main(): Promise<void> {
  const asked = JSON.parse(process.env.ASKED!);
  const config = new Configuration({ basePath: process.env.URL!, accessToken: process.env.KEY! });
  const logs = new RequestLogsApi(config), analytics = new RequestAnalyticsApi(config);
  const answers = {
    query: LogPageToJSON(await logs.queryRequestLogs({ userId: 'ada', pageSize: 2, orderBy: OrderBy.DurationMs })),
    get: ExplainedLogToJSON(await logs.getRequestLog({ requestId: 'call/1 ä' })),
    stats: StatsAnswerToJSON(
      await logs.getRequestLogStats({ userId: 'ada', groupBy: GroupBy.Model, metric: StatsMetric.Cost })),
    charts: CustomAnalyticsAnswerToJSON(
      await analytics.customAnalytics({ customAnalyticsQuery: CustomAnalyticsQueryFromJSON(asked.charts) })),
    search: SearchAnswerToJSON(await analytics.searchRequests({ searchQuery: SearchQueryFromJSON(asked.search) })),
    events: AcceptedEventsToJSON(
      await new EventsApi(config).postEvents({ requestEvent: RequestEventFromJSON(asked.event) })),
  };
  console.log(JSON.stringify(answers));
}

main().catch((error) => { console.error(error); process.exit(1); });
