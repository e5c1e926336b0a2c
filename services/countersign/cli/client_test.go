package cli_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/countersign/cli"
)

// A server with a certificate is reached with --ca-file alone: neither without it nor under another name.
func TestCertificates(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := rpc.NewServer(rpc.Options{
		Auth: auth.Fixed(auth.Caller{ID: "k1", Tenant: "demo", Scopes: auth.Scopes(), Kind: auth.Platform}),
		TLS:  &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	signingv1.RegisterSigningRequestServiceServer(server, &platform{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	defer func() { stop(); <-done }()

	list := func(c cli.Client) (string, error) {
		var out bytes.Buffer
		c.Timeout, c.JSON = 10*time.Second, true
		err := (&cli.ListCmd{Client: c}).Run(t.Context(), &cli.IO{Out: &out, Err: &out, Now: func() time.Time { return noon }})
		return out.String(), err
	}
	if out, err := list(cli.Client{Server: l.Addr().String(), CAFile: ca}); err != nil || !strings.Contains(out, "req_two") {
		t.Errorf("with its certificate: %v, %s", err, out)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for name, c := range map[string]cli.Client{
		"plain text":   {Server: l.Addr().String()},
		"another name": {Server: "localhost:" + port, CAFile: ca},
	} {
		if out, err := list(c); cli.ExitCode(err) != cli.ExitUnreachable {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
}
