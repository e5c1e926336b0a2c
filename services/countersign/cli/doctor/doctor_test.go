package doctor_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/services/countersign/cli/doctor"
)

var topology = eventlog.Merge(eventlog.Topology{Streams: eventlog.SharedStreams()}, eventlog.Topology{
	Streams: []jetstream.StreamConfig{
		{Name: "INTAKE", Subjects: []string{"intake.*"}}, {Name: "OUTCOMES", Subjects: []string{"outcome.>"}}, eventlog.FactsConfig("token"),
	},
	Consumers: []eventlog.ConsumerSpec{{Stream: "FACTS_TOKEN", Durable: "audit"}},
})

// finding returns what was found out about one thing: "level detail -> next" lines.
func finding(found []doctor.Finding, check string) string {
	var out []string
	for _, f := range found {
		if f.Check == check {
			out = append(out, fmt.Sprintf("%s %s -> %s", f.Level, f.Detail, f.Next))
		}
	}
	return strings.Join(out, "\n")
}

func wants(t *testing.T, found []doctor.Finding, check, want string) {
	t.Helper()
	if got := finding(found, check); !strings.Contains(got, want) {
		t.Errorf("%s: %q, want %q", check, got, want)
	}
}

func TestTheRecord(t *testing.T) {
	t.Parallel()
	server := eventlogtest.Start(t)
	nc := server.Connect()
	patient := doctor.Patient{NATS: server.URL(), Expected: topology}
	examine := func() []doctor.Finding { return doctor.Examine(t.Context(), patient) }

	wants(t, examine(), "streams", "fail missing: ADVISORIES, DEAD, FACTS_TOKEN, HEALTH, INTAKE, OUTCOMES")
	js := server.Provision(nc, topology)
	found := examine()
	wants(t, found, "nats", "ok JetStream answers")
	wants(t, found, "streams", "ok 6 there")
	wants(t, found, "dead", "ok empty")
	wants(t, found, "advisories", "ok empty")
	wants(t, found, "consumers", "warn FACTS_TOKEN/audit: nobody reads, 0 messages wait")

	publish(t, js, "fact.token.demo.lnk_1")
	publish(t, js, "dead.token.FACTS_TOKEN")
	found = examine()
	wants(t, found, "consumers", "fail FACTS_TOKEN/audit: nobody reads, 1 messages wait")
	wants(t, found, "dead", "fail 1 messages failed for good")

	reading, stop := context.WithCancel(t.Context())
	defer stop()
	c, err := js.Consumer(reading, "FACTS_TOKEN", "audit")
	if err != nil {
		t.Fatal(err)
	}
	read, err := c.Consume(func(m jetstream.Msg) { _ = m.Ack() })
	if err != nil {
		t.Fatal(err)
	}
	defer read.Stop()
	eventlogtest.Eventually(t, "the consumer is served", func() bool {
		return strings.HasPrefix(finding(examine(), "consumers"), "ok 1, all served; 0 messages wait")
	})

	born(t, js, map[string]string{eventlog.BirthKey: "b", eventlog.SyncKey: "lazy"})
	wants(t, examine(), "sync", "warn a power cut may lose what was acknowledged: the server syncs after it acknowledges (FACTS_TOKEN)")
	born(t, js, nil)
	wants(t, examine(), "streams", "fail without a birth certificate: FACTS_TOKEN")
}

// born gives a stream another birth certificate.
func born(t *testing.T, js jetstream.JetStream, metadata map[string]string) {
	t.Helper()
	config := eventlog.FactsConfig("token")
	config.Metadata = metadata
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, js jetstream.JetStream, subject string) {
	t.Helper()
	if _, err := js.PublishMsg(t.Context(), nats.NewMsg(subject)); err != nil {
		t.Fatal(err)
	}
}

func TestRedisAndItsClock(t *testing.T) {
	t.Parallel()
	rdb := redistest.Embedded(t)
	found := doctor.Examine(t.Context(), doctor.Patient{Redis: rdb.Options().Addr})
	wants(t, found, "redis", "ok answers")
	wants(t, found, "clock", "ok within")
	wants(t, doctor.Examine(t.Context(), doctor.Patient{Redis: "nowhere"}), "redis", "fail hot: a Redis address is host:port")
}

func TestDoors(t *testing.T) {
	t.Parallel()
	ready := http.StatusOK
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" && ready != http.StatusOK {
			w.WriteHeader(ready)
			_, _ = w.Write([]byte(`{"ready":false,"not_ready":["token","mail"]}`))
		}
	}))
	defer web.Close()
	patient := doctor.Patient{HTTP: web.URL, Metrics: web.URL}
	found := doctor.Examine(t.Context(), patient)
	wants(t, found, "http", "ok ")
	wants(t, found, "ready", "ok ")
	ready = http.StatusServiceUnavailable
	wants(t, doctor.Examine(t.Context(), patient), "ready", "fail not ready: token, mail")
}

// relay answers one connection after another as a mail server that offers what it is told to.
func relay(t *testing.T, greeting string, offers ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = fmt.Fprintf(conn, "%s\r\n", greeting)
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				switch verb, _, _ := strings.Cut(strings.ToUpper(lines.Text()), " "); verb {
				case "EHLO":
					_, _ = fmt.Fprint(conn, "250-here\r\n")
					for _, o := range offers {
						_, _ = fmt.Fprintf(conn, "250-%s\r\n", o)
					}
					_, _ = fmt.Fprint(conn, "250 SIZE 1000000\r\n")
				case "QUIT":
					_, _ = fmt.Fprint(conn, "221 bye\r\n")
				default:
					_, _ = fmt.Fprint(conn, "454 not now\r\n")
				}
			}
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestRelay(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		address, tls, want string
	}{
		"plain on this machine": {relay(t, "220 here"), "none", "greets; no TLS, on this machine"},
		"no STARTTLS":           {relay(t, "220 here"), "starttls", "fail "},
		"STARTTLS that fails":   {relay(t, "220 here", "STARTTLS"), "starttls", "fail STARTTLS with"},
		"not a relay":           {relay(t, "hello"), "none", "does not greet as a mail relay does"},
		"no address":            {"relay", "none", "is no address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wants(t, doctor.Examine(t.Context(), doctor.Patient{SMTP: tt.address, SMTPTLS: tt.tls}), "smtp", tt.want)
		})
	}
}
