package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"countersign.dev/pkg/natsserver"
)

// natsChild makes the test's own program a NATS server of one's own: its value is the directory and the two ports.
const natsChild = "COUNTERSIGN_E2E_NATS"

// serveNATSIfAsked runs a NATS server until it is killed or stopped, in a process that was started for that.
func serveNATSIfAsked() bool {
	asked := strings.Split(os.Getenv(natsChild), "|")
	if len(asked) != 3 {
		return false
	}
	port, _ := strconv.Atoi(asked[1])
	monitor, _ := strconv.Atoi(asked[2])
	ns, err := server.NewServer(&server.Options{
		ServerName: "own", Host: "127.0.0.1", Port: port, HTTPHost: "127.0.0.1", HTTPPort: monitor, NoLog: true,
		JetStream: true, StoreDir: asked[0], SyncAlways: true, MaxPayload: natsserver.MaxPayload,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ns.Start() // its own handler of signals shuts it down
	ns.WaitForShutdown()
	return true
}

// natsProcess is a NATS server as a process of its own, which may be killed and started again.
type natsProcess struct {
	t             *testing.T
	dir           string
	port, monitor int
	command       *exec.Cmd
}

// newNATS starts a server on an empty directory.
func newNATS(t *testing.T) *natsProcess {
	t.Helper()
	n := &natsProcess{t: t, dir: filepath.Join(t.TempDir(), "nats"), port: freePort(t), monitor: freePort(t)}
	t.Cleanup(n.kill)
	n.start()
	return n
}

func (n *natsProcess) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.port) }

// monitorURL is where the server tells how it is set up.
func (n *natsProcess) monitorURL() string { return fmt.Sprintf("http://127.0.0.1:%d", n.monitor) }

// start starts it on its directory, and returns when it takes connections.
func (n *natsProcess) start() {
	n.t.Helper()
	n.command = exec.Command(os.Args[0]) //nolint:gosec // this very program
	n.command.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d|%d", natsChild, n.dir, n.port, n.monitor))
	n.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	n.command.Stderr = os.Stderr
	if err := n.command.Start(); err != nil {
		n.t.Fatal(err)
	}
	eventually(within(n.t, time.Minute), n.t, "NATS takes connections", func() bool {
		nc, err := nats.Connect(n.url())
		if err != nil {
			return false
		}
		defer nc.Close()
		js, err := nc.JetStream()
		if err != nil {
			return false
		}
		_, err = js.AccountInfo()
		return err == nil
	})
}

// kill ends it as kill -9 does.
func (n *natsProcess) kill() {
	if n.command != nil {
		_ = n.command.Process.Kill()
		_ = n.command.Wait()
		n.command = nil
	}
}

// The ports that tests hand out lie below those that systems give to connections and to listeners that name none (32768 and up on Linux,
// 49152 on others): a server that is down for a while finds its port free when it comes back.
const firstPort, lastPort = 10_000, 32_000

var (
	portsFrom  = rand.Int64N(lastPort - firstPort) //nolint:gosec // so that test runs side by side seldom try the same ones
	portsTaken atomic.Int64
)

// freePort returns a port that nobody listens on and that no other test of this process gets.
func freePort(t *testing.T) int {
	t.Helper()
	for range lastPort - firstPort {
		port := firstPort + (portsFrom+portsTaken.Add(1))%(lastPort-firstPort)
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return int(port)
	}
	t.Fatal("no port is free")
	return 0
}

// countersign runs a command of the product to its end.
func countersign(ctx context.Context, t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput() //nolint:gosec // built here
	return string(out), err
}

// refuses starts the process and wants it to end by itself, with all of the words.
func (in *instance) refuses(t *testing.T, words ...string) {
	t.Helper()
	before := in.logs.Len()
	line, exited := in.launch("")
	select {
	case text := <-line:
		in.kill()
		t.Fatalf("it started, and should have refused with %q: %s", words, text)
	case err := <-exited:
		if err == nil {
			t.Errorf("it refused with exit status 0")
		}
	case <-time.After(startLimit):
		in.kill()
		t.Fatalf("it neither started nor refused")
	}
	said := in.logs.String()[before:]
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("it refused, but did not say %q: %s", w, said)
		}
	}
}
