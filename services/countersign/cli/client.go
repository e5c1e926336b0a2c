package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/secret"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// Client says how Countersign is reached and how its answers are printed. Every command has these flags.
type Client struct {
	Server     string        `help:"Address of Countersign's gRPC, host:port; beyond this machine TLS is used." default:"127.0.0.1:9090" env:"COUNTERSIGN_SERVER" group:"Connection:"`
	APIKeyFile string        `help:"File with the API key. Without one the server takes callers of its own machine only." env:"COUNTERSIGN_API_KEY_FILE" name:"api-key-file" placeholder:"FILE" group:"Connection:"`
	CAFile     string        `help:"File of certificates (PEM) to trust instead of the system's." env:"COUNTERSIGN_CA_FILE" name:"ca-file" placeholder:"FILE" group:"Connection:"`
	Plaintext  bool          `help:"Reach another machine without TLS." env:"COUNTERSIGN_PLAINTEXT" group:"Connection:"`
	Timeout    time.Duration `help:"How long one call may take." default:"30s" env:"COUNTERSIGN_TIMEOUT" group:"Connection:"`
	JSON       bool          `help:"Print JSON, one object a line." name:"json"`
}

// dial returns the service and how to let go of it. It does not connect yet.
func (c Client) dial() (*grpc.ClientConn, func(), error) {
	if host, port, err := net.SplitHostPort(c.Server); err != nil || host == "" || port == "" {
		return nil, nil, usage("give --server HOST:PORT, for example 127.0.0.1:9090", "%q is no address", c.Server)
	}
	if c.Timeout <= 0 {
		return nil, nil, usage("give for example --timeout 30s", "--timeout is not above zero")
	}
	o := rpc.DialOptions{Deadline: c.Timeout, Plaintext: c.Plaintext}
	if auth.CheckListener(c.Server, c.Plaintext) != nil || c.CAFile != "" {
		pool, err := c.trusted()
		if err != nil {
			return nil, nil, err
		}
		o.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if c.APIKeyFile != "" {
		text, err := os.ReadFile(c.APIKeyFile)
		if err != nil {
			return nil, nil, usage("name the file that holds the key, alone on its line", "cannot read the API key: %v", err)
		}
		key := secret.New(strings.TrimSpace(string(text)))
		if key.IsZero() {
			return nil, nil, usage("name the file that holds the key, alone on its line", "%s is empty", c.APIKeyFile)
		}
		o.Token = key.Reveal
	}
	conn, err := rpc.Dial(c.Server, o)
	if err != nil {
		return nil, nil, usage("give --server HOST:PORT, for example 127.0.0.1:9090", "%v", err)
	}
	return conn, func() { _ = conn.Close() }, nil
}

// trusted returns the certificates of --ca-file; nil is the system's.
func (c Client) trusted() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, usage("name a file of PEM certificates", "cannot read the certificates: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, usage("name a file of PEM certificates", "%s holds no certificate", c.CAFile)
	}
	return pool, nil
}

// with calls do with the service, and puts what comes back into words.
func (c Client) with(ctx context.Context, do func(context.Context, signingv1.SigningRequestServiceClient) error) error {
	return c.connected(func(conn grpc.ClientConnInterface) error {
		return do(ctx, signingv1.NewSigningRequestServiceClient(conn))
	})
}

// withProfiles is with, of the service of expiration profiles.
func (c Client) withProfiles(ctx context.Context, do func(context.Context, signingv1.ProfileServiceClient) error) error {
	return c.connected(func(conn grpc.ClientConnInterface) error { return do(ctx, signingv1.NewProfileServiceClient(conn)) })
}

// withLinks is with, of the service of links.
func (c Client) withLinks(ctx context.Context, do func(context.Context, signingv1.LinkServiceClient) error) error {
	return c.connected(func(conn grpc.ClientConnInterface) error { return do(ctx, signingv1.NewLinkServiceClient(conn)) })
}

func (c Client) connected(do func(grpc.ClientConnInterface) error) error {
	conn, done, err := c.dial()
	if err != nil {
		return err
	}
	defer done()
	return c.explain(do(conn))
}
