// Asks each question once with the client of oapi-codegen.
package main

import (
	"context"
	"encoding/json"
	"net/http"
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
	withKey := insights.WithRequestEditorFn(func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("KEY"))
		return nil
	})
	client, ctx := must(insights.NewClientWithResponses(os.Getenv("URL"), withKey)), context.Background()

	user, size, order := "ada", int64(2), insights.OrderBy("duration_ms")
	group, metric := insights.GroupBy("model"), insights.StatsMetric("cost")
	logs := must(client.QueryRequestLogsWithResponse(ctx,
		&insights.QueryRequestLogsParams{UserId: &user, PageSize: &size, OrderBy: &order}))
	log := must(client.GetRequestLogWithResponse(ctx, "call/1 ä"))
	stats := must(client.GetRequestLogStatsWithResponse(ctx,
		&insights.GetRequestLogStatsParams{UserId: &user, GroupBy: &group, Metric: &metric}))
	charts := must(client.CustomAnalyticsWithResponse(ctx, ask.Charts))
	found := must(client.SearchRequestsWithResponse(ctx, ask.Search))
	events := must(client.PostEventsWithResponse(ctx, ask.Event))
	answers := map[string]any{
		"query": logs.JSON200, "get": log.JSON200, "stats": stats.JSON200,
		"charts": charts.JSON200, "search": found.JSON200, "events": events.JSON202,
	}
	must(0, json.NewEncoder(os.Stdout).Encode(answers))
}
