package proof

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/token"
)

// soaking tells whether the long runs are wanted.
func soaking() bool { return os.Getenv("COUNTERSIGN_SOAK") != "" }

// child makes the test's own program one of the processes that a test needs: a NATS server, or the token service with its own flags.
const child = "COUNTERSIGN_PROOF_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(child) {
	case "nats":
		serveNATS()
	case token.Name:
		host.Main(host.Program{
			Name: token.Name, About: "The token service, as its own command runs it.",
			Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
				return token.New(ctx, h, tenants)
			},
		})
	default:
		os.Exit(m.Run())
	}
}

// quickDir returns a folder that ends with the test, in memory where the machine has such a file system: what is tested here is not
// how a disk keeps what was synced.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "countersign-proof-") //nolint:usetesting // the folder of a test is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// freePorts returns ports that were free a moment ago, no two of them the same.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() //nolint:errcheck // nothing was accepted; a port that is given back before all are chosen may be chosen again
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports
}

// every calls f each d until ctx ends.
func every(ctx context.Context, d time.Duration, f func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}
