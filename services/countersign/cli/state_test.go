package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/services/countersign/cli"
)

var part = hotstate.Part{Service: "test", Keep: time.Hour}

// state runs `countersign state ...` and returns what it printed, and how it ended.
func state(t *testing.T, args ...string) (out, notes string, exit int) {
	t.Helper()
	var c struct{ cli.Commands }
	parsed, err := kong.Must(&c).Parse(append([]string{"state"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	parsed.BindTo(t.Context(), (*context.Context)(nil))
	err = parsed.Run(&cli.IO{Out: &stdout, Err: &stderr, HotState: []hotstate.Part{part}})
	if err != nil {
		fmt.Fprintln(&stderr, err)
	}
	return stdout.String(), stderr.String(), cli.ExitCode(err)
}

func TestStateIsFilledComparedAndMended(t *testing.T) {
	t.Parallel()
	server := eventlogtest.Start(t)
	js := server.Provision(server.Connect(), eventlog.Topology{Streams: []jetstream.StreamConfig{eventlog.FactsConfig("test")}})
	rdb := redistest.Real(t)
	where := []string{"--nats", server.URL(), "--redis", rdb.Options().Addr}
	with := func(args ...string) []string { return append(args, where...) }
	for i := range 30 {
		if _, err := js.Publish(t.Context(), fmt.Sprintf("fact.test.acme.cnt_%d", i%10), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	out, notes, exit := state(t, with("rebuild")...)
	if exit != 0 || !strings.Contains(out, "10 of 10 records written") || !strings.Contains(out, "30 messages read") || !strings.Contains(out, "of a bare read") {
		t.Errorf("rebuild ended %d: %s%s", exit, out, notes)
	}
	out, _, exit = state(t, with("rebuild", "--json", "--tenant", "acme")...)
	var again struct {
		Records, Stored int
		Messages        uint64
		Ratio           float64
	}
	if err := json.Unmarshal([]byte(out), &again); err != nil || exit != 0 || again.Records != 10 || again.Stored != 0 || again.Messages != 30 || again.Ratio <= 0 {
		t.Errorf("rebuild again ended %d: %s, %v", exit, out, err)
	}
	if out, _, exit = state(t, with("verify")...); exit != 0 || !strings.Contains(out, "test: 10 states compared, 0 differences; 0 not in Redis") {
		t.Errorf("verify ended %d: %s", exit, out)
	}
	k := part.Key(eventlog.Key{Tenant: "acme", ID: "cnt_3"})
	if err := errors.Join(rdb.Del(t.Context(), k).Err(), rdb.Del(t.Context(), part.Key(eventlog.Key{Tenant: "acme", ID: "cnt_4"})).Err()); err != nil {
		t.Fatal(err)
	}
	if _, err := hot.New(rdb, time.Second).Put(t.Context(), k, 4, []byte{3}, time.Hour); err != nil {
		t.Fatal(err)
	}
	out, notes, exit = state(t, with("verify")...)
	if exit != cli.ExitRefused || !strings.Contains(out, k+"  older (in Redis 4, in the record 24)") || !strings.Contains(out, "9 states compared, 1 difference; 1 not in Redis") || !strings.Contains(notes, "next: `countersign state verify --repair`") {
		t.Errorf("verify ended %d: %s%s", exit, out, notes)
	}
	out, _, exit = state(t, with("verify", "--repair", "--json")...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if exit != cli.ExitRefused || len(lines) != 2 || !strings.Contains(lines[0], `"what":"older","redis_sequence":4,"record_sequence":24`) || !strings.Contains(lines[1], `"differences":1`) {
		t.Errorf("repair ended %d: %s", exit, out)
	}
	if out, _, exit = state(t, with("verify")...); exit != 0 || !strings.Contains(out, "8 states compared, 0 differences; 2 not in Redis") {
		t.Errorf("verify ended %d: %s", exit, out)
	}
}

func TestStateSaysWhatItCannotReach(t *testing.T) {
	t.Parallel()
	server, rdb := eventlogtest.Start(t), redistest.Embedded(t)
	for name, tt := range map[string]struct {
		args []string
		exit int
		says string
	}{
		"no Redis":  {[]string{"--nats", server.URL(), "--redis", "127.0.0.1:1"}, cli.ExitUnreachable, "Redis at 127.0.0.1:1 does not answer"},
		"no NATS":   {[]string{"--nats", "nats://127.0.0.1:1", "--redis", rdb.Options().Addr}, cli.ExitUnreachable, "cannot connect to NATS"},
		"no record": {[]string{"--nats", server.URL(), "--redis", rdb.Options().Addr}, cli.ExitRefused, "stream FACTS_TEST is missing"},
		"no tenant": {[]string{"--tenant", "a.b"}, cli.ExitUsage, `"a.b" is no tenant`},
		"no file":   {[]string{"--redis-password-file", "nowhere"}, cli.ExitUsage, "cannot read the password"},
	} {
		for _, command := range []string{"rebuild", "verify"} {
			if out, notes, exit := state(t, append([]string{command}, tt.args...)...); exit != tt.exit || out != "" || !strings.Contains(notes, tt.says) {
				t.Errorf("%s, %s: ended %d, said %s%s", command, name, exit, out, notes)
			}
		}
	}
}
