package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/services/token"
)

// process is this very program, started as something else. It dies with the test, or when it is killed.
type process struct {
	t       *testing.T
	kind    string
	args    []string
	env     []string
	command *exec.Cmd
	logs    logs
}

// keptLogs is how much is kept of what a process wrote last.
const keptLogs = 16 << 10

// logs keeps the end of what a process wrote, and who reads it may do so while it writes.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 2*keptLogs {
		l.buf.Next(l.buf.Len() - keptLogs)
	}
	return l.buf.Write(p)
}

// tail returns the end of it.
func (l *logs) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.buf.String()
	return all[max(0, len(all)-keptLogs):]
}

func newProcess(t *testing.T, kind string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, kind: kind, args: args, env: env}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", kind, p.logs.tail())
		}
	})
	return p
}

// start starts it, and returns before it is ready.
func (p *process) start() {
	p.t.Helper()
	p.command = exec.Command(os.Args[0], p.args...) //nolint:gosec // this very program
	p.command.Env = append(append(os.Environ(), child+"="+p.kind), p.env...)
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.command.Stdout, p.command.Stderr = &p.logs, &p.logs
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// signal sends it a signal.
func (p *process) signal(s os.Signal) {
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}

// kill ends it as kill -9 does, and waits for its end.
func (p *process) kill() {
	if p.command != nil {
		_ = p.command.Process.Kill()
		_ = p.command.Wait()
		p.command = nil
	}
}

// node is one of three NATS servers, as it is told to a process.
type node struct {
	Name, Dir     string
	Port, Routing int
	Routes        []int
	Monitor       int
}

const nodeSettings = "COUNTERSIGN_PROOF_NODE"

// serveNATS runs the server that the environment describes, until it is killed.
func serveNATS() {
	var n node
	if err := json.Unmarshal([]byte(os.Getenv(nodeSettings)), &n); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var routes []string
	for _, port := range n.Routes {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	ns, err := server.NewServer(&server.Options{
		ServerName: n.Name, Host: "127.0.0.1", Port: n.Port, HTTPHost: "127.0.0.1", HTTPPort: n.Monitor, Logtime: true, MaxPayload: natsserver.MaxPayload,
		JetStream: true, StoreDir: n.Dir, SyncAlways: true,
		Cluster: server.ClusterOpts{Name: "proof", Host: "127.0.0.1", Port: n.Routing}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ns.ConfigureLogger() // to its standard error
	ns.Start()
	ns.WaitForShutdown()
}

// cluster is three NATS servers that sync always, each a process of its own.
type cluster struct {
	t     *testing.T
	nodes map[string]*process // by the server's name
	at    map[string]string   // addresses by name
	urls  string              // all of them
	js    jetstream.JetStream
}

// newCluster starts three servers, and returns when they have a leader.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, nodes: map[string]*process{}, at: map[string]string{}}
	var urls []string
	var nodes []node
	var routing []int
	free := freePorts(t, 9)
	for i := range 3 {
		n := node{Name: fmt.Sprintf("n%d", i+1), Dir: quickDir(t), Port: free[3*i], Routing: free[3*i+1], Monitor: free[3*i+2]}
		routing, nodes = append(routing, n.Routing), append(nodes, n)
		c.at[n.Name] = fmt.Sprintf("nats://127.0.0.1:%d", n.Port)
		urls = append(urls, c.at[n.Name])
	}
	for _, n := range nodes {
		n.Routes = routing
		settings, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[n.Name] = newProcess(t, "nats", []string{nodeSettings + "=" + string(settings)})
		c.nodes[n.Name].start()
	}
	c.urls = strings.Join(urls, ",")
	var nc *nats.Conn
	eventlogtest.Eventually(t, "three NATS servers take connections", func() (up bool) {
		var err error
		nc, err = nats.Connect(c.urls, nats.MaxReconnects(-1))
		return err == nil
	})
	t.Cleanup(nc.Close)
	var err error
	if c.js, err = jetstream.New(nc); err != nil {
		t.Fatal(err)
	}
	eventlogtest.Eventually(t, "the three have a leader", func() bool {
		_, err := c.js.AccountInfo(t.Context())
		return err == nil
	})
	return c
}

// connect returns a connection to one server.
func (c *cluster) connect(name string) *nats.Conn {
	c.t.Helper()
	nc, err := nats.Connect(c.at[name], nats.MaxReconnects(-1))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(nc.Close)
	return nc
}

// state writes, for a reader, how a stream and its consumers stand.
func (c *cluster) state(stream string) string {
	ctx, stop := context.WithTimeout(c.t.Context(), 10*time.Second)
	defer stop()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Sprintf("%s: %v", stream, err)
	}
	all := []any{s.CachedInfo().State, s.CachedInfo().Cluster}
	consumers := s.ListConsumers(ctx)
	for info := range consumers.Info() {
		all = append(all, info)
	}
	text, err := json.MarshalIndent(all, "", " ")
	return fmt.Sprintf("%s: %s %v", stream, text, errors.Join(err, consumers.Err()))
}

// leader returns the name of the server that leads a stream; "" while none does.
func (c *cluster) leader(stream string) string {
	s, err := c.js.Stream(c.t.Context(), stream)
	if err != nil || s.CachedInfo().Cluster == nil {
		return ""
	}
	return s.CachedInfo().Cluster.Leader
}

// tokenProcess is the token service as a process of its own.
type tokenProcess struct {
	*process
	address string
	ready   string
}

// newToken starts the service, and returns before it is ready.
func newToken(t *testing.T, nats, redis, keys, peers string) *tokenProcess {
	t.Helper()
	free := freePorts(t, 2)
	p := &tokenProcess{address: fmt.Sprintf("127.0.0.1:%d", free[0])}
	metrics := fmt.Sprintf("127.0.0.1:%d", free[1])
	p.ready = "http://" + metrics + "/readyz"
	p.process = newProcess(t, token.Name, nil, "--nats", nats, "--redis", redis, "--keys", keys, "--marks", t.TempDir(), "--listen", p.address,
		"--metrics", metrics, "--log-level", "warn", "--peer", fmt.Sprintf("identity=%[1]s;ceremony=%[1]s;audit=%[1]s", peers))
	p.start()
	return p
}

// wait returns when it is ready.
func (p *tokenProcess) wait() {
	p.t.Helper()
	eventlogtest.Eventually(p.t, "the token service is ready", func() bool {
		req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.ready, nil)
		if err != nil {
			return false
		}
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}
