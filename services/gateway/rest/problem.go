package rest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
)

// Problem is the body of every refusal (RFC 9457).
type Problem struct {
	Type      string `json:"type"` // the code in lower case; "about:blank" where the status says it all
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Code      string `json:"code,omitempty"` // the same in gRPC's details, on pages and in outcomes
	Next      string `json:"next,omitempty"` // the one thing that helps
	Retryable bool   `json:"retryable"`
	// Wait is how long to wait before the same call can succeed, as gRPC's RetryInfo has it: "0.85s". The header Retry-After has
	// whole seconds, rounded up (RFC 9110 10.2.3).
	Wait    string  `json:"retry_after,omitempty"`
	Fields  []Field `json:"fields,omitempty"`
	TraceID string  `json:"trace_id,omitempty"` // what to tell us about an accident
}

// Field is one wrong field. Its problem never repeats the value.
type Field struct {
	Path    string `json:"path"`
	Problem string `json:"problem"`
}

// WriteProblem answers with an error: a refusal as what it is, an accident without its text, which is logged here.
func WriteProblem(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	f, code := refusal(r.Context(), log, err)
	p := Problem{Type: strings.ToLower(f.Code), Title: f.Text, Status: code, Code: f.Code, Next: f.Next, Retryable: f.Retryable}
	for _, field := range f.Fields {
		p.Fields = append(p.Fields, Field{Path: field.Path, Problem: field.Problem})
	}
	h := w.Header()
	if f.RetryAfter > 0 {
		p.Wait = strconv.FormatFloat(f.RetryAfter.Seconds(), 'f', -1, 64) + "s"
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="countersign"`)
	}
	if sc := trace.SpanContextFromContext(r.Context()); code >= http.StatusInternalServerError && sc.IsValid() {
		p.TraceID = sc.TraceID().String()
	}
	write(w, p)
}

// writeStatus answers where there is no call: a path or a method that the contract does not have.
func writeStatus(w http.ResponseWriter, code int) {
	write(w, Problem{Type: "about:blank", Title: http.StatusText(code), Status: code})
}

func write(w http.ResponseWriter, p Problem) {
	headers(w)
	w.Header().Set("Content-Type", "application/problem+json")
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers alone
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the caller may be gone
}

// refusal returns what to tell about an error, and the status to tell it with.
func refusal(ctx context.Context, log *slog.Logger, err error) (*failure.Error, int) {
	if f := failure.From(err); f != nil {
		return f, f.HTTP
	}
	text := err.Error()
	switch code := status.Code(err); {
	case errors.Is(err, errTooLarge), strings.Contains(text, "http: request body too large"), code == codes.ResourceExhausted:
		f := failure.RequestUnreadable.WithFields(failure.Field{Path: "$", Problem: "is larger than " + strconv.Itoa(MaxBody>>20) + " MiB"})
		return f, http.StatusRequestEntityTooLarge
	case code == codes.InvalidArgument:
		// Only the translation refuses without a code of ours.
		f := unreadable(text)
		return f, f.HTTP
	case code == codes.Canceled, code == codes.Unavailable, code == codes.DeadlineExceeded, errors.Is(err, context.DeadlineExceeded):
		log.WarnContext(ctx, "a call could not reach what it needs", "error", err)
		return failure.Unavailable, failure.Unavailable.HTTP
	}
	log.ErrorContext(ctx, "a call failed", "error", err)
	return failure.Internal, failure.Internal.HTTP
}

var wrongQuery = regexp.MustCompile(`parsing field "([A-Za-z0-9_.]{1,64})"`)

// unreadable says where the translation stumbled.
func unreadable(text string) *failure.Error {
	if m := wrongQuery.FindStringSubmatch(text); m != nil {
		return failure.RequestInvalid.WithFields(failure.Field{Path: m[1], Problem: "has a value of another kind"})
	}
	return rpc.Unreadable(text)
}

// plain is a name that a stranger gave, where it looks like one.
func plain(name string) string {
	if parameter.MatchString(name) {
		return name
	}
	return "query"
}

var parameter = regexp.MustCompile(`^[a-z][a-z0-9_.]{0,63}$`)
