// Package rest is the platforms' contract over HTTP: JSON in, a gRPC call, JSON out, and every refusal a problem of RFC 9457
// with the same codes as everywhere. Which path is which call stands in the contract (google.api.http).
package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	// grpc-gateway translates by the annotations of the contract, so that REST and gRPC cannot drift apart.
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	gatewayv1 "countersign.dev/services/gateway/rest/gen/countersign/signing/v1"
)

const (
	// MaxBody is the largest body that is read, in bytes: an inline document of 5 MiB in base64 fits (decisions 20).
	MaxBody = rpc.MaxMessage
	// callLimit is how long a call may take; a document is inspected in it.
	callLimit = time.Minute
)

// Options say what happens around a call.
type Options struct {
	Log *slog.Logger
	// Admit refuses a call of the context's caller before its body is read; nil admits all.
	Admit func(context.Context) error
}

type api struct {
	options Options
	calls   *runtime.ServeMux
}

// New returns the handler of /v1/. conn leads to the services of the contract; who calls is taken from the request's context
// (auth.HTTP) and passed on by conn.
func New(ctx context.Context, conn grpc.ClientConnInterface, o Options) (http.Handler, error) {
	if o.Admit == nil {
		o.Admit = func(context.Context) error { return nil }
	}
	a := &api{options: o}
	none := func(string) (string, bool) { return "", false }
	a.calls = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictJSON()),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			WriteProblem(w, r, o.Log, err)
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, code int) {
			writeStatus(w, code)
		}),
		runtime.WithForwardResponseOption(created),
		// No header of a stranger becomes metadata, and none of ours a header.
		runtime.WithIncomingHeaderMatcher(none), runtime.WithOutgoingHeaderMatcher(none), runtime.WithOutgoingTrailerMatcher(none),
		runtime.WithDisableHTTPMethodOverride(), runtime.WithDisablePathLengthFallback(), runtime.WithWriteContentLength(),
	)
	client := signingv1.NewSigningRequestServiceClient(idempotent{conn})
	if err := gatewayv1.RegisterSigningRequestServiceHandlerClient(ctx, a.calls, client); err != nil {
		return nil, fmt.Errorf("rest: register: %w", err)
	}
	if err := gatewayv1.RegisterLinkServiceHandlerClient(ctx, a.calls, signingv1.NewLinkServiceClient(refusable{conn})); err != nil {
		return nil, fmt.Errorf("rest: register: %w", err)
	}
	if err := gatewayv1.RegisterProfileServiceHandlerClient(ctx, a.calls, signingv1.NewProfileServiceClient(idempotent{conn})); err != nil {
		return nil, fmt.Errorf("rest: register: %w", err)
	}
	return a, nil
}

// ServeHTTP answers one call.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := a.admit(w, r); err != nil {
		WriteProblem(w, r, a.options.Log, err)
		return
	}
	limit := callLimit
	if r.URL.Path == watchPath {
		limit = streamLimit
		if err := unhurried(w); err != nil {
			WriteProblem(w, r, a.options.Log, err)
			return
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	inner := r.WithContext(withIdempotencyKey(ctx, r.Header.Get("Idempotency-Key")))
	// Credentials, addresses and grpc-timeout end here: the translation would pass them on.
	inner.Header, inner.RemoteAddr, inner.Body = http.Header{"Content-Type": {"application/json"}}, "", http.MaxBytesReader(w, r.Body, MaxBody)
	headers(w)
	a.calls.ServeHTTP(w, inner)
}

// admit refuses what needs no look into the body.
func (a *api) admit(w http.ResponseWriter, r *http.Request) error {
	if err := a.options.Admit(r.Context()); err != nil {
		return err
	}
	if r.ContentLength > MaxBody {
		w.Header().Set("Connection", "close") // the rest is not worth reading
		return errTooLarge
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); r.ContentLength != 0 && (err != nil || kind != "application/json") {
		return failure.RequestUnreadable.WithFields(failure.Field{Path: "$", Problem: "has to be JSON, sent with Content-Type: application/json"})
	}
	return knownParameters(r.Method, r.URL)
}

// knownParameters refuses a parameter that no call has: a mistyped filter would silently list everything.
func knownParameters(method string, u *url.URL) error {
	given, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return failure.RequestUnreadable.WithFields(failure.Field{Path: "query", Problem: "is no list of parameters"})
	}
	known := parameters(method, u.Path)
	for name, values := range given {
		switch {
		case known == nil, known.ByTextName(name) == nil:
			return failure.RequestInvalid.WithFields(failure.Field{Path: plain(name), Problem: "is no parameter of this call"})
		case len(values) > 1:
			return failure.RequestInvalid.WithFields(failure.Field{Path: plain(name), Problem: "is given more than once"})
		}
	}
	return nil
}

// parameters are the fields that a call takes from the query; nil where it takes none.
func parameters(method, path string) protoreflect.FieldDescriptors {
	name, isProfile := strings.CutPrefix(path, "/v1/profiles/")
	isProfile = isProfile && !strings.Contains(name, "/")
	var m proto.Message
	switch reads := method == http.MethodGet || method == http.MethodHead; {
	case reads && path == "/v1/requests":
		m = &signingv1.ListRequest{}
	case reads && path == "/v1/links":
		m = &signingv1.ListLinksRequest{}
	case reads && path == watchPath:
		m = &signingv1.WatchLinksRequest{}
	case reads && isProfile:
		m = &signingv1.GetProfileRequest{}
	case method == http.MethodDelete && isProfile:
		m = &signingv1.RetireProfileRequest{}
	default:
		return nil
	}
	return m.ProtoReflect().Descriptor().Fields()
}

// created answers 201, and where to find it, for a request that was not there before.
func created(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	c, ok := m.(interface {
		GetCreated() bool
		GetRequest() *signingv1.RequestView
	})
	if ok && c.GetCreated() {
		w.Header().Set("Location", "/v1/requests/"+c.GetRequest().GetId())
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// headers are those of every answer: data for programs, for nobody to keep or to show.
func headers(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
}

// jsonForm reads the contract's JSON and nothing else, and writes it with the names of the contract.
type jsonForm struct{ runtime.JSONPb }

func strictJSON() *jsonForm {
	return &jsonForm{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}}}
}

// NewDecoder returns one that takes a body as one message: unknown fields, a field twice, and anything after it are refused.
func (j *jsonForm) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(into any) error {
		body, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(body) == 0 {
			return io.EOF
		}
		if !json.Valid(body) { // JSONPb takes the first value and looks no further, and does not know where it stumbled
			return protojson.Unmarshal(body, &structpb.Value{})
		}
		return j.Unmarshal(body, into)
	})
}

type idempotencyKey struct{}

func withIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}

// idempotent puts the header Idempotency-Key into the calls that have a field for it. The others are idempotent by their own
// reference, or by what they do.
type idempotent struct{ grpc.ClientConnInterface }

func (c idempotent) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	key, ok := ctx.Value(idempotencyKey{}).(string)
	m, isProto := args.(proto.Message)
	if !ok || key == "" || !isProto {
		return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
	}
	field := m.ProtoReflect().Descriptor().Fields().ByName("idempotency_key")
	if field != nil {
		if given := m.ProtoReflect().Get(field).String(); given != "" && given != key {
			return failure.RequestInvalid.WithFields(failure.Field{Path: "idempotency_key", Problem: "is not the same as the header Idempotency-Key"})
		}
		m.ProtoReflect().Set(field, protoreflect.ValueOfString(key))
	}
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

var errTooLarge = errors.New("rest: the body is larger than MaxBody")
