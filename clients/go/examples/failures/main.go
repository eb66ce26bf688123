// Command failures prints the requests that failed, newest first.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	insights "router-insights.example/client"
	"router-insights.example/client/insightsv1"
)

func main() {
	logs := insights.NewLogs(http.DefaultClient, os.Getenv("INSIGHTS_API_URL"), os.Getenv("INSIGHTS_API_KEY"))
	for each, err := range insights.All(context.Background(), logs, &insightsv1.QueryRequestLogsRequest{Status: "error"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v %q %q %d\n", each.GetTimestamp().AsTime(), each.GetModelName(), each.GetUserId(), each.GetStatusCode())
	}
}
