package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"countersign.dev/pkg/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// diary is what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, " ")
}

// good runs until it is stopped, and writes both down. It becomes ready some asks after its start.
func (d *diary) good(name string) server.Component {
	var asked atomic.Int32
	return server.Component{
		Name: name,
		Run: func(ctx context.Context) error {
			d.add("+" + name)
			<-ctx.Done()
			d.add("-" + name)
			return nil
		},
		Ready: func(context.Context) error {
			if asked.Add(1) < 3 {
				return errors.New("warming up")
			}
			return nil
		},
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	var d diary
	var g *server.Group
	last := d.good("c")
	ready := last.Ready
	last.Ready = func(ctx context.Context) error { // stops the group once all are up, twice
		err := ready(ctx)
		if err == nil {
			g.Stop()
			g.Stop()
		}
		return err
	}
	once := server.Component{Name: "migrate", Once: true, Run: func(context.Context) error { d.add("migrated"); return nil }}
	g = server.New(server.Options{}, d.good("a"), once, d.good("b"), last)
	if err := g.Run(t.Context()); err != nil {
		t.Errorf("run: %v", err)
	}
	if got, want := d.String(), "+a migrated +b +c -c -b -a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := g.Run(t.Context()); err == nil {
		t.Error("run twice")
	}
	g.Stop()
}

func TestAFailureStopsAll(t *testing.T) {
	t.Parallel()
	boom := errors.New("disk full")
	for name, tt := range map[string]struct {
		bad  server.Component
		want error
		text string
	}{
		"while it runs":           {bad: server.Component{Run: func(context.Context) error { return fmt.Errorf("write: %w", boom) }}, want: boom, text: "bad: write: disk full"},
		"before it is ready":      {bad: server.Component{Run: func(context.Context) error { return boom }, Ready: func(context.Context) error { return errors.New("not yet") }}, want: boom},
		"a run of one":            {bad: server.Component{Once: true, Run: func(context.Context) error { return boom }}, want: boom},
		"by a panic":              {bad: server.Component{Run: func(context.Context) error { panic("nil map") }}, text: "bad panicked: nil map"},
		"by ending":               {bad: server.Component{Run: func(context.Context) error { return nil }}, text: "bad ended though nobody stopped it"},
		"by never becoming ready": {bad: server.Component{Run: func(ctx context.Context) error { <-ctx.Done(); return nil }, Ready: func(context.Context) error { return boom }}, want: boom, text: "bad was not ready after 500ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d diary
			tt.bad.Name = "bad"
			g := server.New(server.Options{StartLimit: 500 * time.Millisecond}, d.good("a"), d.good("b"), tt.bad)
			err := g.Run(t.Context())
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v", err)
			}
			if strings.Count(err.Error(), "server: bad") != 1 {
				t.Errorf("told more than once: %v", err)
			}
			if got := d.String(); got != "+a +b -b -a" {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestErrorsOfTheDrainAreTold(t *testing.T) {
	t.Parallel()
	lost := errors.New("lost the last page")
	var d diary
	bad := server.Component{Name: "bad", Run: func(ctx context.Context) error { <-ctx.Done(); return lost }}
	polite := server.Component{Name: "polite", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	g := server.New(server.Options{}, d.good("a"), bad, polite)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx); err != nil {
		t.Errorf("nothing was started, and yet: %v", err)
	}
	g = server.New(server.Options{}, d.good("a"), bad, polite, server.Component{Name: "stopper", Run: func(ctx context.Context) error { g.Stop(); <-ctx.Done(); return nil }})
	if err := g.Run(t.Context()); !errors.Is(err, lost) || errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestStopLimit(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	left := make(chan struct{})
	stuck := server.Component{Name: "stuck", Run: func(context.Context) error { defer close(left); <-release; return nil }}
	var d diary
	g := server.New(server.Options{StopLimit: 50 * time.Millisecond}, d.good("a"), stuck)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(g.NotReady(ctx)) > 0 && ctx.Err() == nil {
			<-time.After(time.Millisecond)
		}
		cancel()
	}()
	err := g.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "not stopped after 50ms") || !strings.Contains(err.Error(), "stuck") {
		t.Errorf("error %v", err)
	}
	close(release)
	<-left
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	var log bytes.Buffer
	reached, proceed := make(chan struct{}), make(chan struct{})
	store := server.Component{Name: "store", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }, Ready: func(context.Context) error {
		if down.Load() {
			return errors.New("dial 10.1.2.3: refused")
		}
		return nil
	}}
	slow := server.Component{Name: "slow", Run: func(ctx context.Context) error { <-ctx.Done(); <-proceed; return nil }}
	g := server.New(server.Options{Log: slog.New(slog.NewJSONHandler(&log, nil)), DrainDelay: time.Millisecond}, store, slow,
		server.Component{Name: "last", Run: func(ctx context.Context) error { close(reached); <-ctx.Done(); return nil }})
	probe := func(path string) (int, []string) {
		t.Helper()
		w := httptest.NewRecorder()
		g.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		var body struct {
			NotReady []string `json:"not_ready"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if strings.Contains(w.Body.String(), "10.1.2.3") {
			t.Errorf("the answer names a machine: %s", w.Body)
		}
		return w.Code, body.NotReady
	}
	want := func(step string, code int, names ...string) {
		t.Helper()
		if c, n := probe("/readyz"); c != code || !slices.Equal(n, names) {
			t.Errorf("%s: %d %v, want %d %v", step, c, n, code, names)
		}
		if c, _ := probe("/livez"); c != http.StatusOK {
			t.Errorf("%s: livez %d", step, c)
		}
	}
	want("before the start", 503, "store", "slow", "last")
	done := make(chan error, 1)
	go func() { done <- g.Run(t.Context()) }()
	<-reached
	want("up", 200)
	down.Store(true)
	want("store is down", 503, "store")
	want("store is still down", 503, "store")
	down.Store(false)
	want("store is back", 200)
	g.Stop()
	want("draining", 503, "draining")
	close(proceed)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "dial 10.1.2.3"); n != 1 {
		t.Errorf("a change is logged %d times: %s", n, log.String())
	}
}

func TestNewPanicsOnAProgrammersMistake(t *testing.T) {
	t.Parallel()
	run := func(context.Context) error { return nil }
	for name, components := range map[string][]server.Component{
		"no name":    {{Run: run}},
		"no run":     {{Name: "a"}},
		"name twice": {{Name: "a", Run: run}, {Name: "a", Run: run}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			server.New(server.Options{}, components...)
		}()
	}
}

func TestHTTPDrains(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		drain time.Duration
		cut   bool
	}{"a request that ends": {10 * time.Second, false}, "a request that hangs": {20 * time.Millisecond, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered, finish := make(chan struct{}), make(chan struct{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(entered)
				<-finish
				_, _ = io.WriteString(w, "whole")
			})}
			g := server.New(server.Options{}, server.HTTP("http", s, l, tt.drain))
			done := make(chan error, 1)
			go func() { done <- g.Run(t.Context()) }()
			body := make(chan string, 1)
			go func() {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), nil)
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				resp, err := client.Do(req)
				if err != nil {
					body <- "cut"
					return
				}
				defer resp.Body.Close()
				text, _ := io.ReadAll(resp.Body)
				body <- string(text)
			}()
			<-entered
			g.Stop()
			if tt.cut {
				if got := <-body; got != "cut" {
					t.Errorf("got %q", got)
				}
				close(finish)
			} else {
				close(finish)
				if got := <-body; got != "whole" {
					t.Errorf("got %q", got)
				}
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if s.ReadHeaderTimeout == 0 || s.MaxHeaderBytes == 0 {
				t.Error("no limits")
			}
		})
	}
}

func TestHTTPFailsWithItsListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := server.New(server.Options{}, server.HTTP("http", &http.Server{}, l, time.Second)).Run(t.Context()); err == nil {
		t.Error("no error")
	}
}

// Not parallel: the signal goes to the whole process.
func TestSignals(t *testing.T) {
	exit := make(chan int, 1)
	ctx, stop := server.Signals(t.Context(), slog.New(slog.DiscardHandler), func(code int) { exit <- code })
	defer stop()
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !strings.Contains(cause.Error(), "terminated") {
		t.Errorf("cause %v", cause)
	}
	select {
	case c := <-exit:
		t.Errorf("exit %d after one signal", c)
	default:
	}
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if c := <-exit; c != 130 {
		t.Errorf("exit %d, want 130", c)
	}
	stop()
	stop()
}
