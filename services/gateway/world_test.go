package gateway_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/telemetry"
	"countersign.dev/services/gateway"
)

var noon = time.Date(2026, 12, 2, 12, 0, 0, 0, time.UTC)

// world is a gateway behind a real HTTP server, and peers that answer as a test says.
type world struct {
	t     *testing.T
	clock *clock.Manual
	peers *peers
	host  *host.Host
	logs  *lines
	url   string
}

type option func(*gateway.Config, *host.Host)

func newWorld(t *testing.T, options ...option) *world {
	t.Helper()
	master := make([]byte, keys.MasterSize)
	_, _ = rand.Read(master)
	ring, err := keys.NewRing(master)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, clock: clock.NewManual(noon), peers: newPeers(), logs: &lines{}}
	network := rpc.NewNetwork()
	for name, register := range w.peers.services() {
		serve(t, network, name, register)
	}
	w.host = &host.Host{
		Keys: ring, Clock: w.clock, Telemetry: telemetry.Nop(), Logger: slog.New(telemetry.NewHandler(w.logs, slog.LevelDebug)),
		Redis: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialTimeout: 50 * time.Millisecond}), // away, unless a test brings one
	}
	c := gateway.Config{HTTP: "127.0.0.1:0"}
	for _, o := range options {
		o(&c, w.host)
	}
	w.host.Peers = &dialler{t: t, network: network, telemetry: w.host.Telemetry, conns: map[string]*grpc.ClientConn{}}
	s, err := gateway.New(t.Context(), w.host, c, config.Default())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func defaults() *config.Config { return config.Default() }

// realRedis gives a world a Redis of its own.
func realRedis(t *testing.T) option {
	t.Helper()
	rdb := redistest.Real(t)
	return func(_ *gateway.Config, h *host.Host) { h.Redis = rdb }
}

func serve(t *testing.T, network *rpc.Network, name string, register func(grpc.ServiceRegistrar)) {
	t.Helper()
	server, err := rpc.NewServer(rpc.Options{Auth: auth.OnBehalf(auth.InProcess())})
	if err != nil {
		t.Fatal(err)
	}
	register(server)
	l, err := network.Listen(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// dialler reaches the peers as in production: over memory, on behalf of whoever calls.
type dialler struct {
	t         *testing.T
	network   *rpc.Network
	telemetry *telemetry.Telemetry
	mu        sync.Mutex
	conns     map[string]*grpc.ClientConn
}

func (d *dialler) Dial(service string) (*grpc.ClientConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.conns[service]; c != nil {
		return c, nil
	}
	c, err := rpc.Dial(service, rpc.DialOptions{Self: gateway.Name, Network: d.network, Telemetry: d.telemetry, OnBehalf: true})
	if err == nil {
		d.conns[service] = c
		d.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// lines is what was logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// browser is somebody's browser: it keeps cookies and does not follow redirects.
type browser struct {
	w      *world
	jar    http.CookieJar
	header http.Header
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w: w, jar: jar, header: http.Header{"Accept-Language": {"en"}, "User-Agent": {"Telltale/1.0"}}}
}

// answer is a response whose body was read.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(method, path string, form url.Values) answer {
	b.w.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.w.t.Context(), method, b.w.url+path, body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	r.Header = b.header.Clone()
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := http.Client{Jar: b.jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		b.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return answer{resp, string(text)}
}

func (b *browser) get(path string) answer { b.w.t.Helper(); return b.do(http.MethodGet, path, nil) }

// submit sends the form of a page that leads to path, with what is typed into it.
func (b *browser) submit(page answer, path string, typed ...string) answer {
	b.w.t.Helper()
	form, ok := page.form(path)
	if !ok {
		b.w.t.Fatalf("no form leads to %s in %d %s:\n%s", path, page.StatusCode, page.title(), page.body)
	}
	for i := 0; i+1 < len(typed); i += 2 {
		form.Set(typed[i], typed[i+1])
	}
	return b.do(http.MethodPost, path, form)
}

// follow goes where a redirect leads.
func (b *browser) follow(a answer) answer {
	b.w.t.Helper()
	if a.StatusCode != http.StatusSeeOther {
		b.w.t.Fatalf("no redirect but %d %s:\n%s", a.StatusCode, a.title(), a.body)
	}
	return b.get(a.Header.Get("Location"))
}

func (b *browser) cookies() map[string]string {
	u, err := url.Parse(b.w.url)
	if err != nil {
		b.w.t.Fatal(err)
	}
	all := map[string]string{}
	for _, c := range b.jar.Cookies(u) {
		all[c.Name] = c.Value
	}
	return all
}

var (
	forms  = regexp.MustCompile(`(?s)<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>`)
	inputs = regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)">`)
	titles = regexp.MustCompile(`(?s)<h1[^>]*>(.*?)</h1>`)
)

func (a answer) form(path string) (url.Values, bool) {
	for _, m := range forms.FindAllStringSubmatch(a.body, -1) {
		if m[1] != path {
			continue
		}
		values := url.Values{}
		for _, in := range inputs.FindAllStringSubmatch(m[2], -1) {
			values.Set(in[1], in[2])
		}
		return values, true
	}
	return nil, false
}

// title is the one heading of a page, without the marks that isolate foreign text.
func (a answer) title() string {
	m := titles.FindStringSubmatch(a.body)
	if m == nil {
		return ""
	}
	return strings.NewReplacer("\u2068", "", "\u2069", "").Replace(m[1])
}

// shows tells whether a page has a text, whatever isolates it.
func (a answer) shows(text string) bool {
	return strings.Contains(strings.NewReplacer("\u2068", "", "\u2069", "", "&#39;", "'", "&#34;", `"`).Replace(a.body), text)
}

func (w *world) wantTitle(a answer, status int, title string) {
	w.t.Helper()
	if a.StatusCode != status || a.title() != title {
		w.t.Fatalf("got %d %q, want %d %q\n%s", a.StatusCode, a.title(), status, title, a.body)
	}
}
