package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"countersign.dev/pkg/redisserver"
)

// services are the processes that Countersign is made of, beside the mailbox of development.
var services = []string{"token", "identity", "ceremony", "delivery", "reminder", "escalation", "audit", "gateway"}

// binaries are all services built, each as a program of its own.
var binaries = sync.OnceValues(func() (string, error) {
	one, err := binary()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(one), "apart") // which is removed with it
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	args := []string{"build", "-tags", "faults", "-o", dir}
	for _, s := range append(services, "mailbox") {
		args = append(args, "countersign.dev/services/"+s+"/cmd/"+s)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

// process is one service.
type process struct {
	t       *testing.T
	name    string
	args    []string
	ready   string // URL that answers 200 when it is ready
	command *exec.Cmd
	logs    bytes.Buffer
}

func (p *process) start() {
	p.t.Helper()
	dir, err := binaries()
	if err != nil {
		p.t.Fatal(err)
	}
	p.command = exec.Command(filepath.Join(dir, p.name), p.args...) //nolint:gosec // built here
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.command.Stderr = &p.logs
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// awaitReady waits until it says that it is ready.
func (p *process) awaitReady(ctx context.Context) {
	p.t.Helper()
	eventually(ctx, p.t, p.name+" is ready", func() bool {
		status, err := call(ctx, http.MethodGet, p.ready, nil, nil)
		return err == nil && status == http.StatusOK
	})
}

// kill ends it as kill -9 does.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// stop asks it to drain and wants a clean end.
func (p *process) stop() {
	p.t.Helper()
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.command.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			p.t.Errorf("%s was asked to drain and ended with %v", p.name, err)
		}
	case <-time.After(time.Minute):
		_ = p.command.Process.Kill()
		p.t.Errorf("%s is not drained within a minute", p.name)
	}
}

// apart is Countersign as processes of their own, on one NATS and one Redis. Its instance has addresses and no process.
type apart struct {
	*instance
	processes map[string]*process
}

func newApart(t *testing.T) *apart {
	t.Helper()
	if _, err := binaries(); err != nil {
		t.Fatal(err)
	}
	ns := newNATS(t)
	rs, err := redisserver.Start(t.Context(), redisserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rs.Stop)
	a := &apart{instance: newInstance(t, calmSettings), processes: map[string]*process{}}
	if out, err := countersign(t.Context(), t, "init", "--data", a.data, "--nats", ns.url(), "--monitor", ns.monitorURL()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	web, grpc, mails, smtp := address(), address(), address(), address()
	a.Addresses.HTTP, a.Addresses.GRPC, a.Addresses.Mailbox, a.Addresses.SMTP = "http://"+web, grpc, "http://"+mails, smtp
	a.Addresses.NATS, a.Addresses.Redis = ns.url(), rs.Addr()
	peers := map[string]string{}
	for _, s := range services {
		peers[s] = address()
	}
	for _, s := range services {
		a.add(t, s, peers, map[string][]string{
			"token":    {"--grpc", grpc},
			"identity": quickFlags[:6],
			"delivery": append([]string{"--smtp", smtp, "--smtp-tls", "none", "--public-url", a.Addresses.HTTP}, quickFlags[6:]...),
			"gateway":  {"--http", web},
		}[s])
	}
	a.processes["mailbox"] = &process{
		t: t, name: "mailbox", ready: a.Addresses.Mailbox + "/readyz",
		args: []string{"--smtp", smtp, "--http", mails, "--dir", filepath.Join(t.TempDir(), "mailbox")},
	}
	for _, p := range a.processes {
		p.start()
		t.Cleanup(p.kill)
	}
	t.Cleanup(func() {
		for name, p := range a.processes {
			if p.kill(); t.Failed() {
				t.Logf("logs of %s:\n%s", name, tail(p.logs.String(), 3000))
			}
		}
	})
	for _, p := range a.processes {
		p.awaitReady(within(t, 2*time.Minute))
	}
	return a
}

// add prepares a service that knows where the others are.
func (a *apart) add(t *testing.T, name string, peers map[string]string, own []string) {
	t.Helper()
	metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	args := []string{
		"--nats", a.Addresses.NATS, "--redis", a.Addresses.Redis, "--keys", filepath.Join(a.data, "keys"),
		"--marks", filepath.Join(a.data, "marks-"+name), "--config", a.flags[len(a.flags)-1], "--log-level", "warn",
		"--listen", peers[name], "--metrics", metrics,
	}
	for peer, at := range peers {
		if peer != name {
			args = append(args, "--peer", peer+"="+at)
		}
	}
	a.processes[name] = &process{t: t, name: name, args: append(args, own...), ready: "http://" + metrics + "/readyz"}
}

// TestServicesApart runs every service as a process of its own: a request made by REST and one published on NATS are signed and
// certified; then each service is killed and started again in the middle of another; in the end each drains.
func TestServicesApart(t *testing.T) {
	t.Parallel()
	a := newApart(t)
	ctx := within(t, 4*time.Minute)
	byREST, err := a.create(ctx, request("apart-rest", "calm", "rest@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	byNATS := publish(ctx, t, a.Addresses.NATS, nil, request("apart-nats", "calm", "nats@example.com"))
	signed := map[string]string{byREST.ID: "rest@example.com", byNATS: "nats@example.com"}
	for id, email := range signed {
		if err := a.person(email).signs(ctx, id, 1); err != nil {
			t.Fatal(err)
		}
	}

	v, err := a.create(ctx, request("apart-killed", "calm", "killed@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	signed[v.ID] = "killed@example.com"
	left := slices.Clone(services)
	p := a.person("killed@example.com")
	p.before = func(int) { left = a.killNext(left, 2) }
	if err := p.signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	for len(left) > 0 { // while the rest happens: the certificate, the copies
		left = a.killNext(left, 1)
	}
	o := a.oracle(t)
	for id := range signed {
		a.completed(t, ctx, id)
	}
	o.quiet(ctx)
	o.nothingDead(ctx)
	for id, email := range signed {
		o.completedOnce(ctx, id, email, 1)
	}
	for _, name := range append([]string{"gateway"}, slices.DeleteFunc(slices.Clone(services), func(s string) bool { return s == "gateway" })...) {
		a.processes[name].stop()
	}
	a.processes["mailbox"].stop()
	for name, process := range a.processes {
		if strings.Contains(process.logs.String(), "panic") {
			t.Errorf("%s panicked", name)
		}
	}
}

// killNext kills the first n of some services, starts them again at once, and returns the others.
func (a *apart) killNext(left []string, n int) []string {
	n = min(n, len(left))
	for _, name := range left[:n] {
		a.processes[name].kill()
		a.processes[name].start()
	}
	return left[n:]
}
