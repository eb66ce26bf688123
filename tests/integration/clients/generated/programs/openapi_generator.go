// Asks each question once with the Go client of openapi-generator.
package main

import (
	"context"
	"encoding/json"
	"os"

	"example.com/router/insights"
)

type asked struct {
	Charts insights.CustomAnalyticsQuery `json:"charts"`
	Search insights.SearchQuery          `json:"search"`
	Event  insights.RequestEvent         `json:"event"`
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	var ask asked
	must(0, json.Unmarshal([]byte(os.Getenv("ASKED")), &ask))
	config := insights.NewConfiguration()
	config.Servers = insights.ServerConfigurations{{URL: os.Getenv("URL")}}
	config.AddDefaultHeader("Authorization", "Bearer "+os.Getenv("KEY"))
	client, ctx := insights.NewAPIClient(config), context.Background()

	logs, _, err := client.RequestLogsAPI.QueryRequestLogs(ctx).UserId("ada").PageSize(2).
		OrderBy(insights.ORDERBY_DURATION_MS).Execute()
	must(0, err)
	log, _, err := client.RequestLogsAPI.GetRequestLog(ctx, "call/1 ä").Execute()
	must(0, err)
	stats, _, err := client.RequestLogsAPI.GetRequestLogStats(ctx).UserId("ada").
		GroupBy(insights.GROUPBY_MODEL).Metric(insights.STATSMETRIC_COST).Execute()
	must(0, err)
	charts, _, err := client.RequestAnalyticsAPI.CustomAnalytics(ctx).CustomAnalyticsQuery(ask.Charts).Execute()
	must(0, err)
	found, _, err := client.RequestAnalyticsAPI.SearchRequests(ctx).SearchQuery(ask.Search).Execute()
	must(0, err)
	events, _, err := client.EventsAPI.PostEvents(ctx).RequestEvent(ask.Event).Execute()
	must(0, err)
	answers := map[string]any{
		"query": logs, "get": log, "stats": stats, "charts": charts, "search": found, "events": events,
	}
	must(0, json.NewEncoder(os.Stdout).Encode(answers))
}
