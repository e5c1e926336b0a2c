// Package e2e tests the whole product as its users meet it: the real binary, real HTTP, real mail, killed and restarted.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"countersign.dev/services/countersign/stack"
)

// startLimit is how long a start may take; the first on a machine compiles the page renderer.
const startLimit = 2 * time.Minute

// binary is countersign built with the crash points, once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "countersign-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "countersign")
	build := exec.Command("go", "build", "-tags", "faults", "-o", path, "countersign.dev/services/countersign/cmd/countersign")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	if serveNATSIfAsked() {
		return
	}
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// instance is a data directory and the process that runs on it, which may be killed and started again.
type instance struct {
	t         *testing.T
	data      string
	flags     []string
	Addresses stack.Addresses

	mu      sync.Mutex
	command *exec.Cmd
	exited  <-chan error
	logs    *bytes.Buffer

	// revive starts a process that died; nil where none should die.
	revive func()
}

// reviveIfDead brings a process back that was killed at its point.
func (in *instance) reviveIfDead() {
	if in.revive != nil && in.dead() {
		in.revive()
	}
}

// newInstance prepares an instance with settings whose links live for lifetime; nothing runs yet. Ports are chosen at the first start and kept.
func newInstance(t *testing.T, settings string, flags ...string) *instance {
	t.Helper()
	in := &instance{t: t, data: filepath.Join(t.TempDir(), "data"), flags: flags, logs: &bytes.Buffer{}}
	config := filepath.Join(t.TempDir(), "config")
	tenant := filepath.Join(config, "demo")
	if err := os.MkdirAll(tenant, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, content := range splitSettings(settings) {
		if err := os.WriteFile(filepath.Join(tenant, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	in.flags = append(in.flags, "--config", config)
	t.Cleanup(func() {
		in.kill()
		if t.Failed() {
			t.Logf("logs of the instance:\n%s", tail(in.logs.String(), 12_000))
		}
	})
	return in
}

// splitSettings reads "-- file --" sections.
func splitSettings(s string) map[string]string {
	out := map[string]string{}
	var file string
	for line := range strings.Lines(s) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok {
			file = strings.TrimSuffix(name, " --")
			continue
		}
		if file != "" {
			out[file] += line
		}
	}
	return out
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// start runs the process until it is ready. crash names the point at which it will die, "" for none; dying before it is ready is fine then.
func (in *instance) start(crash string) {
	in.t.Helper()
	line, exited := in.launch(crash)
	select {
	case text := <-line:
		if err := json.Unmarshal([]byte(text), &in.Addresses); err != nil || !in.Addresses.Ready {
			in.t.Fatalf("the ready line is %q: %v", text, err)
		}
	case err := <-exited:
		if crash == "" {
			in.t.Fatalf("it ended before it was ready: %v\n%s", err, tail(in.logs.String(), 4000))
		}
		// It died at its point on the way up: whoever needs it starts it again.
	case <-time.After(startLimit):
		in.t.Fatalf("not ready within %v\n%s", startLimit, tail(in.logs.String(), 4000))
	}
}

// launch starts the process; the channels give its first line and its end.
func (in *instance) launch(crash string) (<-chan string, <-chan error) {
	in.t.Helper()
	path, err := binary()
	if err != nil {
		in.t.Fatal(err)
	}
	args := append([]string{"up", "--json", "--data", in.data, "--log-level", "warn"}, in.flags...)
	args = append(args, in.addressFlags()...)
	command := exec.Command(path, args...)
	command.Env = append(os.Environ(), "COUNTERSIGN_CRASH="+crash)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := command.StdoutPipe()
	if err != nil {
		in.t.Fatal(err)
	}
	command.Stderr = in.logs
	if err := command.Start(); err != nil {
		in.t.Fatal(err)
	}
	line, exited := make(chan string, 1), make(chan error, 1) // exited is closed after, so that everybody sees the end
	go func() {
		scanner := bufio.NewScanner(out)
		scanner.Buffer(nil, 1<<20)
		if scanner.Scan() {
			line <- scanner.Text()
		}
		for scanner.Scan() {
		}
		err := command.Wait()
		exited <- err
		close(exited)
	}()
	in.mu.Lock()
	in.command, in.exited = command, exited
	in.mu.Unlock()
	return line, exited
}

// addressFlags are free ports at first, and those of the first start after.
func (in *instance) addressFlags() []string {
	strip := func(url string) string {
		url = strings.TrimPrefix(strings.TrimPrefix(url, "http://"), "nats://")
		url, _, _ = strings.Cut(url, "/")
		if url == "" {
			return fmt.Sprintf("127.0.0.1:%d", freePort(in.t))
		}
		return url
	}
	a := in.Addresses
	return []string{
		"--http", strip(a.HTTP), "--grpc", strip(a.GRPC), "--metrics", strip(a.Metrics), "--mailbox", strip(a.Mailbox),
		"--mailbox-smtp", strip(a.SMTP), "--nats-listen", strip(a.NATS), "--redis-listen", strip(a.Redis),
	}
}

// dead tells whether the process has ended.
func (in *instance) dead() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	select {
	case <-in.exited:
		return true
	default:
		return false
	}
}

// kill ends the process as kill -9 does, and waits for its end.
func (in *instance) kill() {
	in.mu.Lock()
	command, exited := in.command, in.exited
	in.mu.Unlock()
	if command == nil {
		return
	}
	_ = command.Process.Kill()
	<-exited
}

// stop asks the process to drain and wants a clean end.
func (in *instance) stop() {
	in.t.Helper()
	if err := in.command.Process.Signal(syscall.SIGTERM); err != nil {
		in.t.Fatal(err)
	}
	select {
	case err := <-in.exited:
		if err != nil {
			in.t.Errorf("a drained process ended with %v", err)
		}
	case <-time.After(time.Minute):
		in.t.Error("not drained within a minute")
	}
}

// within returns a context that ends after d or with the test.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
