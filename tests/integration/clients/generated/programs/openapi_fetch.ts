// Asks each question once with openapi-fetch and the types of openapi-typescript.
import createClient from 'openapi-fetch';

import type { components, paths } from './client/schema';

async function told<T>(answer: Promise<{ data?: T; error?: unknown }>): Promise<T> {
  const { data, error } = await answer;
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

async function main(): Promise<void> {
  const asked: {
    charts: components['schemas']['CustomAnalyticsQuery'];
    search: components['schemas']['SearchQuery'];
    event: components['schemas']['RequestEvent'];
  } = JSON.parse(process.env.ASKED!);
  const client = createClient<paths>({
    baseUrl: process.env.URL!,
    headers: { Authorization: `Bearer ${process.env.KEY}` },
  });
  const base = '/api/public/v2/requests';
  const answers = {
    query: await told(client.GET('/v1/request-logs', {
      params: { query: { user_id: 'ada', page_size: 2, order_by: 'duration_ms' } },
    })),
    get: await told(client.GET('/v1/request-logs/{request_id}', { params: { path: { request_id: 'call/1 ä' } } })),
    stats: await told(client.GET('/v1/request-logs/stats', {
      params: { query: { user_id: 'ada', group_by: 'model', metric: 'cost' } },
    })),
    charts: await told(client.POST(`${base}/analytics/custom-analytics`, { body: asked.charts })),
    search: await told(client.POST(`${base}/search`, { body: asked.search })),
    events: await told(client.POST('/v1/events', { body: asked.event })),
  };
  const first: string | undefined = answers.query.logs[0]?.request_id;
  if (first === undefined) throw new Error('no log');
  console.log(JSON.stringify(answers));
}

main().catch((error) => { console.error(error); process.exit(1); });
