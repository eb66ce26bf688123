// Asks each question once with the client of hey-api.
import { client } from './client/client.gen';
import {
  customAnalytics, getRequestLog, getRequestLogStats, postEvents, queryRequestLogs, searchRequests,
} from './client';

async function main(): Promise<void> {
  const asked = JSON.parse(process.env.ASKED!);
  client.setConfig({ baseUrl: process.env.URL!, auth: process.env.KEY!, throwOnError: true });
  const told = { throwOnError: true } as const;
  const answers = {
    query: (await queryRequestLogs({ ...told, query: { user_id: 'ada', page_size: 2, order_by: 'duration_ms' } })).data,
    get: (await getRequestLog({ ...told, path: { request_id: 'call/1 ä' } })).data,
    stats: (await getRequestLogStats({ ...told, query: { user_id: 'ada', group_by: 'model', metric: 'cost' } })).data,
    charts: (await customAnalytics({ ...told, body: asked.charts })).data,
    search: (await searchRequests({ ...told, body: asked.search })).data,
    events: (await postEvents({ ...told, body: asked.event })).data,
  };
  console.log(JSON.stringify(answers));
}

main().catch((error) => { console.error(error); process.exit(1); });
