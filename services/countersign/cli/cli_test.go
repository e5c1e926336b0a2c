package cli_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript" // stories of a command line as text, from the go command's own tests
	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/countersign/cli"
)

// noon is what the command takes for now: what is "2 h ago" stays it.
var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"countersign": func() { os.Exit(run(os.Args[1:])) }})
}

// run does what the main function of the product does.
func run(args []string) int {
	var c struct{ cli.Commands }
	code := -1
	parser := kong.Must(&c, kong.Name("countersign"), kong.Exit(func(status int) { code = status }))
	parsed, err := parser.Parse(args)
	if code >= 0 {
		return code // help was asked for
	}
	if err == nil {
		io := cli.System()
		io.Now = func() time.Time { return noon }
		parsed.BindTo(context.Background(), (*context.Context)(nil))
		err = parsed.Run(io)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "countersign: %v\n", err)
	}
	return cli.ExitCode(err)
}

func TestStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			address := serve(e)
			e.Vars = append(e.Vars, "COUNTERSIGN_SERVER="+address, "TZ=UTC", "HOME="+e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// status runs a command and wants an exit status: status 3 countersign list.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// serve starts a server of the contract for one story; it takes callers of this machine, or the key "k1".
func serve(e *testscript.Env) string {
	keys := auth.Func(func(_ context.Context, ev auth.Evidence) (auth.Caller, error) {
		switch ev.Authorization {
		case "":
			return auth.Caller{}, auth.ErrAbsent
		case "Bearer k1":
			return auth.Caller{ID: "k1", Tenant: "demo", Scopes: auth.Scopes(), Kind: auth.Platform}, nil
		default:
			return auth.Caller{}, failure.Unauthenticated
		}
	})
	server, err := rpc.NewServer(rpc.Options{Auth: auth.FirstOf(keys, auth.Loopback()), Public: true})
	if err != nil {
		e.T().Fatal(err)
	}
	signingv1.RegisterSigningRequestServiceServer(server, &platform{made: map[string]*signingv1.RequestView{}})
	signingv1.RegisterProfileServiceServer(server, newProfiles())
	signingv1.RegisterLinkServiceServer(server, &linkage{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.T().Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	e.Defer(func() { stop(); <-done })
	return l.Addr().String()
}

var _ grpc.ServiceRegistrar = (*rpc.Server)(nil)
