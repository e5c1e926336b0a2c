package doctor

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const startIt = "start it with `countersign up`, or say where it is"

// examineGRPC asks the door for platforms whether it serves.
func examineGRPC(ctx context.Context, p Patient) []Finding {
	if p.GRPC == nil {
		return nil
	}
	answer, err := healthv1.NewHealthClient(p.GRPC).Check(ctx, &healthv1.HealthCheckRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return []Finding{warn("grpc", "check that --server is Countersign's gRPC address", "%s answers, but not about its health", p.GRPCName)}
	case err != nil:
		return []Finding{fail("grpc", startIt+" with --server", "nobody serves gRPC at %s (%s)", p.GRPCName, status.Code(err))}
	case answer.GetStatus() != healthv1.HealthCheckResponse_SERVING:
		return []Finding{fail("grpc", "see its logs: it is starting or draining", "%s says %s", p.GRPCName, answer.GetStatus())}
	}
	return []Finding{ok("grpc", "serving at %s", p.GRPCName)}
}

// examineHTTP asks the door for signers whether it lives.
func examineHTTP(ctx context.Context, p Patient) []Finding {
	if p.HTTP == "" {
		return nil
	}
	code, _, err := get(ctx, p.HTTP+"/livez")
	switch {
	case err != nil:
		return []Finding{fail("http", startIt+" with --http", "nobody answers at %s: %s", p.HTTP, short(err))}
	case code != http.StatusOK:
		return []Finding{fail("http", "check that --http is where signers reach Countersign", "%s/livez answers %d", p.HTTP, code)}
	}
	return []Finding{ok("http", "signers' pages and REST answer at %s", p.HTTP)}
}

// examineReady asks the process which of its parts are not ready.
func examineReady(ctx context.Context, p Patient) []Finding {
	if p.Metrics == "" {
		return nil
	}
	code, body, err := get(ctx, p.Metrics+"/readyz")
	if err != nil {
		return []Finding{fail("ready", startIt+" with --metrics", "nobody answers at %s: %s", p.Metrics, short(err))}
	}
	var told struct {
		NotReady []string `json:"not_ready"`
	}
	_ = json.Unmarshal(body, &told) // without names the status says enough
	switch {
	case code == http.StatusOK:
		return []Finding{ok("ready", "every part says it is ready")}
	case len(told.NotReady) > 0:
		return []Finding{fail("ready", "its logs say why; they name the part", "not ready: %s", strings.Join(told.NotReady, ", "))}
	default:
		return []Finding{fail("ready", "check that --metrics is Countersign's metrics address", "%s/readyz answers %d", p.Metrics, code)}
	}
}

func get(ctx context.Context, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, body, err
}

// short is the end of an error's chain: what went wrong, without who was asking whom.
func short(err error) string {
	text := err.Error()
	for _, cause := range []string{"connection refused", "no such host", "i/o timeout", "context deadline exceeded", "certificate"} {
		if strings.Contains(text, cause) {
			return cause
		}
	}
	return text
}
