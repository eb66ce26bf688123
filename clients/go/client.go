// Package insights asks router-insights for request logs and their statistics.
package insights

import (
	"context"
	"iter"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"router-insights.example/client/insightsv1"
	"router-insights.example/client/insightsv1/insightsv1connect"
)

// Logs asks for the request logs that a key may see.
type Logs = insightsv1connect.RequestLogsServiceClient

// CustomerLogs asks for the request logs of the user to whom a key is restricted.
type CustomerLogs = insightsv1connect.CustomerRequestLogsServiceClient

// NewLogs returns a client of the service at baseURL, such as "https://insights.example:8080", that sends apiKey with
// every request. Options are those of Connect: its gRPC-Web protocol, JSON, interceptors, limits.
func NewLogs(http connect.HTTPClient, baseURL, apiKey string, options ...connect.ClientOption) Logs {
	return insightsv1connect.NewRequestLogsServiceClient(http, baseURL, withKey(apiKey, options)...)
}

// NewCustomerLogs is NewLogs for keys that are restricted to a user.
func NewCustomerLogs(http connect.HTTPClient, baseURL, apiKey string, options ...connect.ClientOption) CustomerLogs {
	return insightsv1connect.NewCustomerRequestLogsServiceClient(http, baseURL, withKey(apiKey, options)...)
}

// All yields every log that query matches, page by page; query is left as it is. The loop ends with the first error.
func All(ctx context.Context, logs Logs, query *insightsv1.QueryRequestLogsRequest) iter.Seq2[*insightsv1.RequestLog, error] {
	return func(yield func(*insightsv1.RequestLog, error) bool) {
		asked := proto.CloneOf(query)
		for {
			page, err := logs.QueryRequestLogs(ctx, connect.NewRequest(asked))
			if err != nil {
				yield(nil, err)
				return
			}
			for _, log := range page.Msg.Logs {
				if !yield(log, nil) {
					return
				}
			}
			if asked.PageToken = page.Msg.NextPageToken; asked.PageToken == "" {
				return
			}
		}
	}
}

func withKey(apiKey string, options []connect.ClientOption) []connect.ClientOption {
	sendKey := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
			request.Header().Set("Authorization", "Bearer "+apiKey)
			return next(ctx, request)
		}
	})
	return append([]connect.ClientOption{connect.WithInterceptors(sendKey)}, options...)
}
