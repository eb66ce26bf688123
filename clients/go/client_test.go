package insights_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	insights "router-insights.example/client"
	"router-insights.example/client/insightsv1"
)

// The protocols that the service speaks.
var protocols = map[string][]connect.ClientOption{
	"binary":   nil,
	"JSON":     {connect.WithProtoJSON()},
	"gRPC-Web": {connect.WithGRPCWeb()},
	"HTTP GET": {connect.WithHTTPGet()},
}

// setting is what `make clients` says about the running service.
func setting(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run these tests by `make clients`", name)
	}
	return value
}

func logsOf(t *testing.T, options ...connect.ClientOption) insights.Logs {
	t.Helper()
	return insights.NewLogs(http.DefaultClient, setting(t, "INSIGHTS_API_URL"), setting(t, "INSIGHTS_API_KEY"), options...)
}

// rest reads the answer of a REST route, as any HTTP client gets it, into a message.
func rest(t *testing.T, path string, query url.Values, answer proto.Message) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, setting(t, "INSIGHTS_API_URL")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.URL.RawQuery = query.Encode()
	request.Header.Set("Authorization", "Bearer "+setting(t, "INSIGHTS_API_KEY"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", path, body, err)
	}
	// REST shows more than the proto has.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, answer); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Fatalf("got  %v\nwant %v", got, want)
	}
}

func forEachProtocol(t *testing.T, test func(t *testing.T, logs insights.Logs)) {
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) { test(t, logsOf(t, options...)) })
	}
}

func TestAQueryAnswersWhatRestAnswers(t *testing.T) {
	queries := map[string]*insightsv1.QueryRequestLogsRequest{
		"":                                   {},
		"page_size=7&order_by=duration_ms":   {PageSize: 7, OrderBy: "duration_ms"},
		"status=error&order_direction=asc":   {Status: "error", OrderDirection: "asc"},
		"page_size=1000&min_duration_ms=100": {PageSize: 1000, MinDurationMs: 100},
	}
	forEachProtocol(t, func(t *testing.T, logs insights.Logs) {
		for query, asked := range queries {
			values, err := url.ParseQuery(query)
			if err != nil {
				t.Fatal(err)
			}
			want := &insightsv1.QueryRequestLogsResponse{}
			rest(t, "/v1/request-logs", values, want)
			got, err := logs.QueryRequestLogs(t.Context(), connect.NewRequest(asked))
			if err != nil {
				t.Fatal(err)
			}
			same(t, got.Msg, want)
			if len(want.Logs) == 0 {
				t.Fatal("there is nothing to compare")
			}
		}
	})
}

func TestAllPagesHoldEveryLogOnce(t *testing.T) {
	want := &insightsv1.QueryRequestLogsResponse{}
	rest(t, "/v1/request-logs", url.Values{"page_size": {"1000"}}, want)
	forEachProtocol(t, func(t *testing.T, logs insights.Logs) {
		got := &insightsv1.QueryRequestLogsResponse{TotalCount: want.TotalCount}
		asked := &insightsv1.QueryRequestLogsRequest{PageSize: 30}
		for each, err := range insights.All(t.Context(), logs, asked) {
			if err != nil {
				t.Fatal(err)
			}
			got.Logs = append(got.Logs, each)
		}
		same(t, got, want)
		same(t, asked, &insightsv1.QueryRequestLogsRequest{PageSize: 30})
	})
}

func TestOneLogIsThatOfRest(t *testing.T) {
	page := &insightsv1.QueryRequestLogsResponse{}
	rest(t, "/v1/request-logs", url.Values{"page_size": {"5"}}, page)
	forEachProtocol(t, func(t *testing.T, logs insights.Logs) {
		for _, each := range page.Logs {
			want := &insightsv1.RequestLog{}
			rest(t, "/v1/request-logs/"+url.PathEscape(each.GetRequestId()), nil, want)
			got, err := logs.GetRequestLog(
				t.Context(), connect.NewRequest(&insightsv1.GetRequestLogRequest{RequestId: each.GetRequestId()}),
			)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got.Msg.Log, want)
		}
	})
}

func TestStatisticsAreThoseOfRest(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, logs insights.Logs) {
		for _, asked := range []*insightsv1.GetRequestLogStatsRequest{
			{GroupBy: "model", Metric: "count"},
			{GroupBy: "user", Metric: "cost"},
			{GroupBy: "api_key", Metric: "latency"},
			{GroupBy: "status", Metric: "errors"},
			{GroupBy: "hour", Metric: "tokens"},
			{GroupBy: "day", Metric: "cost"},
		} {
			want := &insightsv1.GetRequestLogStatsResponse{}
			rest(t, "/v1/request-logs/stats", url.Values{"group_by": {asked.GroupBy}, "metric": {asked.Metric}}, want)
			got, err := logs.GetRequestLogStats(t.Context(), connect.NewRequest(asked))
			if err != nil {
				t.Fatal(err)
			}
			same(t, got.Msg, want)
		}
	})
}

func TestACustomerGetsTheLogsOfTheirUser(t *testing.T) {
	want := &insightsv1.ListCustomerRequestLogsResponse{}
	rest(t, "/v1/request-logs", url.Values{"user_id": {setting(t, "INSIGHTS_CUSTOMER")}}, want)
	address := setting(t, "INSIGHTS_API_URL")
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			logs := insights.NewCustomerLogs(http.DefaultClient, address, setting(t, "INSIGHTS_CUSTOMER_KEY"), options...)
			asked := &insightsv1.ListCustomerRequestLogsRequest{}
			got, err := logs.ListCustomerRequestLogs(t.Context(), connect.NewRequest(asked))
			if err != nil {
				t.Fatal(err)
			}
			same(t, got.Msg, want)
		})
	}
}

func TestErrorsHaveTheirCodesAndNameTheField(t *testing.T) {
	forEachProtocol(t, func(t *testing.T, logs insights.Logs) {
		_, err := logs.QueryRequestLogs(t.Context(), connect.NewRequest(&insightsv1.QueryRequestLogsRequest{PageSize: 5000}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "page_size") {
			t.Fatal(err)
		}
		var failure *connect.Error
		if !errors.As(err, &failure) || len(failure.Details()) != 1 || failure.Details()[0].Type() != "google.rpc.BadRequest" {
			t.Fatalf("no detail that programs can read: %v", failure.Details())
		}
		_, err = logs.GetRequestLog(t.Context(), connect.NewRequest(&insightsv1.GetRequestLogRequest{RequestId: "nobody's"}))
		if connect.CodeOf(err) != connect.CodeNotFound {
			t.Fatal(err)
		}
		context, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		_, err = logs.GetRequestLogStats(context, connect.NewRequest(&insightsv1.GetRequestLogStatsRequest{}))
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Fatal(err)
		}
	})
	for name, options := range protocols {
		stranger := insights.NewLogs(http.DefaultClient, setting(t, "INSIGHTS_API_URL"), "ak-wrong", options...)
		for _, err := range insights.All(t.Context(), stranger, &insightsv1.QueryRequestLogsRequest{}) {
			if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Fatal(name, err)
			}
		}
	}
}

func TestTheExampleRuns(t *testing.T) {
	want := &insightsv1.QueryRequestLogsResponse{}
	rest(t, "/v1/request-logs", url.Values{"status": {"error"}, "page_size": {"1000"}}, want)
	output, err := exec.CommandContext(t.Context(), "go", "run", "./examples/failures").CombinedOutput()
	if err != nil {
		t.Fatal(err, string(output))
	}
	if lines := strings.Count(string(output), "\n"); lines != len(want.Logs) || lines == 0 {
		t.Fatalf("%d lines for %d logs: %s", lines, len(want.Logs), output)
	}
}

func TestTheReadmeShowsTheExample(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("examples/failures/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), string(example)) {
		t.Fatal("README.md shows another example than examples/failures/main.go")
	}
}
