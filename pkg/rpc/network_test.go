package rpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/rpc"
)

// plainTo are the options of a client that has nothing of ours but the way to the server.
func plainTo(t *testing.T, n *rpc.Network) []grpc.DialOption {
	t.Helper()
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return rpc.DialForTest(ctx, n, "plain", "server")
		}),
	}
}

func names(w *sync.Map) service {
	return service{unary: func(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
		c := auth.From(ctx)
		w.Store(c.Kind.String()+"/"+c.ID, true)
		return &testgrpc.SimpleResponse{Username: c.ID}, nil
	}}
}

func call(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	r, err := testgrpc.NewTestServiceClient(conn).UnaryCall(ctx, &testgrpc.SimpleRequest{})
	return r.GetUsername(), err
}

func TestEveryDiallerIsKnown(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	w := start(t, names(&seen), nil)
	var wg sync.WaitGroup
	for i := range 8 {
		self := fmt.Sprintf("service%d", i)
		conn := w.dial(t, func(o *rpc.DialOptions) { o.Self = self })
		wg.Go(func() {
			for range 20 {
				if got, err := call(t.Context(), conn); err != nil || got != self {
					t.Errorf("%s is taken for %q, %v", self, got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestACallWaitsForAServiceThatStartsLater(t *testing.T) {
	t.Parallel()
	n := rpc.NewNetwork()
	conn, err := rpc.Dial("later", rpc.DialOptions{Self: "early", Network: n})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := call(short, conn); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("while nobody listens: %v", err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := call(t.Context(), conn)
		got <- err
	}()
	var seen sync.Map
	stop := serveOn(t, n, "later", names(&seen))
	if err := <-got; err != nil {
		t.Errorf("once it listens: %v", err)
	}
	stop()
	if _, err := call(t.Context(), conn); status.Code(err) != codes.Unavailable {
		t.Errorf("once it has stopped: %v", err)
	}
	defer serveOn(t, n, "later", names(&seen))()
	again, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := testgrpc.NewTestServiceClient(conn).UnaryCall(again, &testgrpc.SimpleRequest{}, grpc.WaitForReady(true))
	if err != nil || r.GetUsername() != "early" {
		t.Errorf("once it is back: %v, %v", r, err)
	}
}

func serveOn(t *testing.T, n *rpc.Network, name string, s service) (stop func()) {
	t.Helper()
	server, err := rpc.NewServer(rpc.Options{Auth: auth.InProcess()})
	if err != nil {
		t.Fatal(err)
	}
	testgrpc.RegisterTestServiceServer(server, s)
	lis, err := n.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNamesAndAddresses(t *testing.T) {
	t.Parallel()
	n := rpc.NewNetwork()
	l, err := n.Listen("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("a"); err == nil {
		t.Error("one name, two listeners")
	}
	if l.Addr().String() != "memory:a" {
		t.Errorf("address %v", l.Addr())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
	if err := n.At("b", "nowhere"); err == nil {
		t.Error("an address without a port")
	}
	if err := n.At("b", "192.0.2.1:1"); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		target string
		o      rpc.DialOptions
		want   string
	}{
		"a name without a network":      {"a", rpc.DialOptions{Self: "x"}, "no Network"},
		"nobody dials":                  {"a", rpc.DialOptions{Network: n}, "Self"},
		"another machine in plain text": {"192.0.2.1:443", rpc.DialOptions{}, "TLS"},
		"the same by name":              {"b", rpc.DialOptions{Network: n, Self: "x"}, "TLS"},
		"plain text, told to":           {"192.0.2.1:443", rpc.DialOptions{Plaintext: true}, ""},
		"no address":                    {"127.0.0.1:1/x:y", rpc.DialOptions{}, "host:port"},
		"loopback":                      {"127.0.0.1:1", rpc.DialOptions{}, ""},
	} {
		conn, err := rpc.Dial(tt.target, tt.o)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if conn != nil {
			conn.Close()
		}
	}
}

// The same stubs reach a service apart over TCP, where its certificate says who calls.
func TestApartOverTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	server, err := rpc.NewServer(rpc.Options{
		Auth: auth.FirstOf(auth.InProcess(), auth.MutualTLS("countersign", "delivery")),
		TLS:  &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ca.issue(t, "token")}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.pool},
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen sync.Map
	testgrpc.RegisterTestServiceServer(server, names(&seen))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, lis) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	n := rpc.NewNetwork()
	if err := n.At("token", lis.Addr().String()); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		certificates []tls.Certificate
		code         codes.Code
	}{
		"a service it knows":     {[]tls.Certificate{ca.issue(t, "delivery")}, codes.OK},
		"a service it knows not": {[]tls.Certificate{ca.issue(t, "audit")}, codes.Unauthenticated},
		"nobody":                 {nil, codes.Unauthenticated},
		"of another authority":   {[]tls.Certificate{newAuthority(t).issue(t, "delivery")}, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := rpc.Dial("token", rpc.DialOptions{Self: "delivery", Network: n, TLS: &tls.Config{
				MinVersion: tls.VersionTLS13, RootCAs: ca.pool, ServerName: "token.test",
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(tt.certificates) == 0 {
						return &tls.Certificate{}, nil
					}
					return &tt.certificates[0], nil
				},
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			got, err := call(t.Context(), conn)
			if status.Code(err) != tt.code || err == nil && got != "delivery" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := authority{cert, key, x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

func (a authority) issue(t *testing.T, service string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{service + ".test"},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "countersign", Path: "/ns/test/sa/" + service}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
