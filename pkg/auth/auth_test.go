package auth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
)

var loopback = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}

func TestStrategies(t *testing.T) {
	t.Parallel()
	certificate := func(verified bool, uris ...string) *tls.ConnectionState {
		cert := &x509.Certificate{}
		for _, u := range uris {
			parsed, err := url.Parse(u)
			if err != nil {
				t.Fatal(err)
			}
			cert.URIs = append(cert.URIs, parsed)
		}
		s := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if verified {
			s.VerifiedChains = [][]*x509.Certificate{{cert}}
		}
		return s
	}
	outside := &net.TCPAddr{IP: net.ParseIP("203.0.113.5"), Port: 1}
	mtls := auth.MutualTLS("countersign", "delivery", "gateway")
	const id = "spiffe://countersign/ns/prod/sa/delivery"
	demo := auth.Loopback()
	refuse := auth.Func(func(context.Context, auth.Evidence) (auth.Caller, error) {
		return auth.Caller{}, failure.Unauthenticated
	})
	absent := auth.Func(func(context.Context, auth.Evidence) (auth.Caller, error) { return auth.Caller{}, auth.ErrAbsent })
	for name, tt := range map[string]struct {
		by   auth.Authenticator
		e    auth.Evidence
		want string // kind/id
		err  error
	}{
		"in process":                     {by: auth.InProcess(), e: auth.Evidence{Peer: auth.Addr{Service: "delivery"}}, want: "internal/delivery"},
		"in process without a name":      {by: auth.InProcess(), e: auth.Evidence{Peer: auth.Addr{}}, err: failure.Unauthenticated},
		"in process over TCP":            {by: auth.InProcess(), e: auth.Evidence{Peer: loopback}, err: auth.ErrAbsent},
		"certificate":                    {by: mtls, e: auth.Evidence{TLS: certificate(true, id)}, want: "internal/delivery"},
		"certificate of a stranger":      {by: mtls, e: auth.Evidence{TLS: certificate(true, "spiffe://countersign/ns/prod/sa/audit")}, err: failure.Unauthenticated},
		"certificate of another domain":  {by: mtls, e: auth.Evidence{TLS: certificate(true, "spiffe://evil/ns/prod/sa/delivery")}, err: failure.Unauthenticated},
		"certificate with two names":     {by: mtls, e: auth.Evidence{TLS: certificate(true, id, "spiffe://countersign/ns/prod/sa/gateway")}, err: failure.Unauthenticated},
		"certificate with a longer path": {by: mtls, e: auth.Evidence{TLS: certificate(true, id+"/x")}, err: failure.Unauthenticated},
		"certificate over https":         {by: mtls, e: auth.Evidence{TLS: certificate(true, "https://countersign/ns/prod/sa/delivery")}, err: failure.Unauthenticated},
		"certificate not verified":       {by: mtls, e: auth.Evidence{TLS: certificate(false, id)}, err: auth.ErrAbsent},
		"no certificate":                 {by: mtls, e: auth.Evidence{TLS: &tls.ConnectionState{}}, err: auth.ErrAbsent},
		"no TLS":                         {by: mtls, err: auth.ErrAbsent},
		"demo":                           {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback, Host: "localhost:8080"}, want: "demo/demo"},
		"demo over IPv6":                 {by: demo, e: auth.Evidence{Peer: &net.TCPAddr{IP: net.IPv6loopback}, Local: &net.TCPAddr{IP: net.IPv6loopback}, Host: "[::1]:80"}, want: "demo/demo"},
		"demo below localhost":           {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback, Host: "sign.localhost"}, want: "demo/demo"},
		"demo from outside":              {by: demo, e: auth.Evidence{Peer: outside, Local: loopback, Host: "localhost"}, err: auth.ErrAbsent},
		"demo on an open listener":       {by: demo, e: auth.Evidence{Peer: loopback, Local: outside, Host: "localhost"}, err: auth.ErrAbsent},
		"demo of a rebound name":         {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback, Host: "evil.example"}, err: auth.ErrAbsent},
		"demo of a look-alike name":      {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback, Host: "notlocalhost"}, err: auth.ErrAbsent},
		"demo without a host":            {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback}, err: auth.ErrAbsent},
		"demo behind a proxy":            {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback, Host: "localhost", Proxied: true}, err: auth.ErrAbsent},
		"demo with credentials":          {by: demo, e: auth.Evidence{Peer: loopback, Local: loopback, Host: "localhost", Authorization: "Bearer x"}, err: auth.ErrAbsent},
		"demo of nowhere":                {by: demo, e: auth.Evidence{Host: "localhost"}, err: auth.ErrAbsent},
		"the next is asked":              {by: auth.FirstOf(absent, auth.Fixed(auth.Caller{ID: "x", Kind: auth.Internal})), want: "internal/x"},
		"bad credentials end it":         {by: auth.FirstOf(refuse, auth.Fixed(auth.Caller{ID: "x", Kind: auth.Internal})), err: failure.Unauthenticated},
		"none of them":                   {by: auth.FirstOf(absent), err: auth.ErrAbsent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.by.Authenticate(t.Context(), tt.e)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if tt.err == nil && got.Kind.String()+"/"+got.ID != tt.want {
				t.Errorf("got %+v, want %s", got, tt.want)
			}
			if tt.err != nil && got.Kind != auth.Nobody {
				t.Errorf("refused, and yet %+v", got)
			}
		})
	}
}

func TestWhatACallerMay(t *testing.T) {
	t.Parallel()
	platform := auth.Caller{ID: "k", Tenant: "acme", Scopes: []string{auth.RequestsRead}, Kind: auth.Platform}
	internal := auth.Caller{ID: "delivery", Kind: auth.Internal}
	for name, tt := range map[string]struct {
		caller auth.Caller
		named  string
		tenant string
		err    error
	}{
		"platform, its own":        {platform, "acme", "acme", nil},
		"platform, none named":     {platform, "", "acme", nil},
		"platform, another's":      {platform, "other", "", failure.PermissionDenied},
		"internal, any":            {internal, "acme", "acme", nil},
		"internal, none named":     {internal, "", "", failure.PermissionDenied},
		"internal, bound, another": {auth.Caller{Kind: auth.Internal, Tenant: "acme"}, "other", "", failure.PermissionDenied},
		"nobody":                   {auth.Caller{Tenant: "acme"}, "acme", "", failure.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := auth.Tenant(auth.With(t.Context(), tt.caller), tt.named)
			if got != tt.tenant || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	for name, tt := range map[string]struct {
		caller auth.Caller
		err    error
	}{
		"with the scope":    {platform, nil},
		"without the scope": {auth.Caller{Tenant: "acme", Kind: auth.Platform}, failure.PermissionDenied},
		"internal":          {internal, nil},
		"nobody with it":    {auth.Caller{Scopes: []string{auth.RequestsRead}}, failure.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := auth.Require(auth.With(t.Context(), tt.caller), auth.RequestsRead); !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
		})
	}
	if err := auth.Require(t.Context(), auth.RequestsRead); !errors.Is(err, failure.Unauthenticated) {
		t.Errorf("without an interceptor: %v", err)
	}
}

func TestCheckListener(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "127.9.9.9:80": true, "[::1]:80": true, "localhost:80": true, "[::ffff:127.0.0.1]:80": true, "unix:/run/cs.sock": true,
		":8080": false, "0.0.0.0:80": false, "[::]:80": false, "192.168.1.4:80": false, "sign.example:80": false, "localhost.evil.example:80": false, "127.0.0.1": false, "": false,
	} {
		if err := auth.CheckListener(address, false); (err == nil) != ok {
			t.Errorf("CheckListener(%q, false) = %v", address, err)
		}
		if err := auth.CheckListener(address, true); err != nil {
			t.Errorf("CheckListener(%q, true) = %v", address, err)
		}
	}
}

// echo tells who called.
type echo struct {
	testgrpc.UnimplementedTestServiceServer
}

func tell(ctx context.Context) *testgrpc.Payload {
	c := auth.From(ctx)
	return &testgrpc.Payload{Body: []byte(c.Kind.String() + "/" + c.ID + "@" + c.Tenant + " via " + c.Via + " " + strings.Join(c.Scopes, ","))}
}

func (echo) UnaryCall(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	return &testgrpc.SimpleResponse{Payload: tell(ctx)}, nil
}

func (echo) StreamingOutputCall(_ *testgrpc.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testgrpc.StreamingOutputCallResponse]) error {
	return s.Send(&testgrpc.StreamingOutputCallResponse{Payload: tell(s.Context())})
}

// FullDuplexCall goes on until it may not.
func (echo) FullDuplexCall(s grpc.BidiStreamingServer[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse]) error {
	if err := s.Send(&testgrpc.StreamingOutputCallResponse{Payload: tell(s.Context())}); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

func serve(t *testing.T, a auth.Authenticator) *grpc.ClientConn {
	t.Helper()
	enter := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := auth.Enter(ctx, a, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(enter), grpc.StreamInterceptor(auth.StreamServer(a)))
	testgrpc.RegisterTestServiceServer(server, echo{})
	healthv1.RegisterHealthServer(server, health.NewServer())
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); server.Stop(); <-done })
	return conn
}

func ask(ctx context.Context, t *testing.T, conn *grpc.ClientConn) (unary, streamed string, err error) {
	t.Helper()
	client := testgrpc.NewTestServiceClient(conn)
	one, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{})
	s, openErr := client.StreamingOutputCall(ctx, &testgrpc.StreamingOutputCallRequest{})
	if openErr != nil {
		t.Fatal(openErr)
	}
	two, streamErr := s.Recv()
	if status.Code(err) != status.Code(streamErr) {
		t.Fatalf("unary says %v, stream says %v", err, streamErr)
	}
	return string(one.GetPayload().GetBody()), string(two.GetPayload().GetBody()), err
}

func TestOverGRPC(t *testing.T) {
	t.Parallel()
	gateway := auth.Fixed(auth.Caller{ID: "gateway", Kind: auth.Internal})
	platform := auth.Caller{ID: "k1", Tenant: "acme", Scopes: []string{auth.RequestsRead, auth.AuditRead}, Kind: auth.Platform}
	forged := metadata.AppendToOutgoingContext(t.Context(), "countersign-caller-id", "x", "countersign-caller-tenant", "acme",
		"countersign-caller-kind", "internal", "countersign-caller-scopes", "*")
	twice := metadata.AppendToOutgoingContext(auth.Outgoing(auth.With(t.Context(), platform)), "countersign-caller-tenant", "other")
	for name, tt := range map[string]struct {
		by   auth.Authenticator
		ctx  context.Context //nolint:containedctx // a table's input
		want string
		code codes.Code
	}{
		"demo on loopback":              {auth.FirstOf(auth.InProcess(), auth.Loopback()), t.Context(), "demo/demo@demo via  " + strings.Join(auth.Scopes(), ","), codes.OK},
		"proxied demo":                  {auth.Loopback(), metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-for", "203.0.113.9"), "", codes.Unauthenticated},
		"nobody configured":             {nil, t.Context(), "", codes.Unauthenticated},
		"an authenticator of nobody":    {auth.Fixed(auth.Caller{ID: "x"}), t.Context(), "", codes.Unauthenticated},
		"internal in its own name":      {auth.OnBehalf(gateway), auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "z", Kind: auth.Internal})), "internal/gateway@ via  ", codes.OK},
		"internal on behalf":            {auth.OnBehalf(gateway), auth.Outgoing(auth.With(t.Context(), platform)), "platform/k1@acme via gateway requests:read,audit:read", codes.OK},
		"on behalf of nobody new":       {auth.OnBehalf(gateway), forged, "", codes.Unauthenticated},
		"on behalf of two tenants":      {auth.OnBehalf(gateway), twice, "", codes.Unauthenticated},
		"on behalf, said by a platform": {auth.OnBehalf(auth.Fixed(platform)), auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "victim", Tenant: "other", Kind: auth.Platform})), "platform/k1@acme via  requests:read,audit:read", codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := serve(t, tt.by)
			unary, streamed, err := ask(tt.ctx, t, conn)
			if status.Code(err) != tt.code || unary != tt.want || streamed != tt.want {
				t.Errorf("got %q and %q, %v; want %q, %v", unary, streamed, err, tt.want, tt.code)
			}
			// Probes have no credentials.
			if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
				t.Errorf("health: %v", err)
			}
		})
	}
}

func TestOverHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(auth.HTTP(auth.Loopback(), nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(tell(r.Context()).GetBody())
	})))
	defer server.Close()
	get := func(change func(*http.Request)) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(req)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body bytes.Buffer
		_, _ = body.ReadFrom(resp.Body)
		return resp, body.String()
	}
	if resp, body := get(func(*http.Request) {}); resp.StatusCode != http.StatusOK || !strings.HasPrefix(body, "demo/demo@demo") {
		t.Errorf("demo: %d %s", resp.StatusCode, body)
	}
	for name, change := range map[string]func(*http.Request){
		"rebound name":     func(r *http.Request) { r.Host = "evil.example" },
		"proxy":            func(r *http.Request) { r.Header.Set("X-Forwarded-For", "203.0.113.9") },
		"key":              func(r *http.Request) { r.Header.Set("Authorization", "Bearer nonsense") },
		"a header is said": func(r *http.Request) { r.Host = "evil.example"; r.Header.Set("X-Tenant", "demo") },
	} {
		resp, body := get(change)
		var p struct{ Type, Code string }
		if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != http.StatusUnauthorized || p.Type != "unauthenticated" ||
			resp.Header.Get("WWW-Authenticate") == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v %s", name, resp.StatusCode, resp.Header, body)
		}
	}
}

func TestACallerIsLoggedWithoutScopes(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("call", "caller", auth.Caller{ID: "k", Tenant: "acme", Scopes: []string{"a:b"}, Kind: auth.Platform})
	if s := out.String(); strings.Contains(s, "a:b") || !strings.Contains(s, `"tenant":"acme"`) {
		t.Errorf("got %s", s)
	}
}

// TestAStreamEndsWithItsKey: a key that is taken out ends the streams that were opened by it, and no other.
func TestAStreamEndsWithItsKey(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	conn := serve(t, auth.Func(func(_ context.Context, e auth.Evidence) (auth.Caller, error) {
		if e.Authorization == "first" && gone.Load() {
			return auth.Caller{}, failure.Unauthenticated
		}
		return auth.Caller{ID: e.Authorization, Tenant: "acme", Kind: auth.Platform}, nil
	}))
	open := func(key string) grpc.BidiStreamingClient[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse] {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", key), 30*time.Second)
		t.Cleanup(cancel)
		s, err := testgrpc.NewTestServiceClient(conn).FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second := open("first"), open("second")
	gone.Store(true)
	if _, err := first.Recv(); !errors.Is(failure.From(err), failure.Unauthenticated) {
		t.Errorf("the stream of the key that is gone ends with %v", err)
	}
	if err := second.Context().Err(); err != nil {
		t.Errorf("the other stream: %v", err)
	}
}
