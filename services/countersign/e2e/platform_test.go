package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protojson"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// TestAPlatformOverNATS lets a platform in by the accounts that the command line made: its request goes through, it hears what becomes
// of it, and it gets nowhere else.
func TestAPlatformOverNATS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	accounts, seeds := filepath.Join(dir, "accounts.conf"), filepath.Join(dir, "seeds")
	in := newInstance(t, "", "--nats-accounts", accounts)
	program, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 2*time.Minute)
	say := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		return string(out), err
	}
	for _, args := range [][]string{
		{"keys", "make", "--data", in.data},
		{"keys", "nats", "--data", in.data, "--accounts", accounts, "--seeds", seeds, "demo", "globex"},
	} {
		if out, err := say(args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	in.start("")
	connect := func(tenant string) *nats.Conn {
		seed, err := nats.NkeyOptionFromSeed(filepath.Join(seeds, tenant+".nk"))
		if err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(in.Addresses.NATS, seed, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	demo, globex := connect("demo"), connect("globex")
	hear := func(nc *nats.Conn, subject string) *nats.Subscription {
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		return sub
	}
	outcomes, answers, foreign := hear(demo, "outcome.demo.>"), hear(demo, "reply.demo.1"), hear(globex, "outcome.globex.>")
	js, err := jetstream.New(demo)
	if err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("intake.demo")
	m.Data = []byte(text(t, good(t)))
	m.Header.Set("countersign-reply", "reply.demo.1")
	if _, err := js.PublishMsg(ctx, m); err != nil {
		t.Fatal(err)
	}
	view, told := &signingv1.RequestView{}, &signingv1.Outcome{}
	if got, err := answers.NextMsgWithContext(ctx); err != nil || protojson.Unmarshal(got.Data, view) != nil || view.GetId() == "" {
		t.Errorf("answered %v, %v", got, err)
	}
	if got, err := outcomes.NextMsgWithContext(ctx); err != nil || protojson.Unmarshal(got.Data, told) != nil || told.GetEvent() != "accepted" {
		t.Errorf("told %v, %v", got, err)
	}
	if got, err := foreign.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("globex heard %s", got.Data)
	}
	// Whoever looks after the deployment is known by its keys, and by nothing else.
	state := []string{"state", "verify", "--nats", in.Addresses.NATS, "--redis", in.Addresses.Redis}
	if out, err := say(append(state, "--keys", filepath.Join(in.data, "keys"))...); err != nil {
		t.Errorf("state verify: %v\n%s", err, out)
	}
	if out, err := say(state...); err == nil || !strings.Contains(out, "cannot connect to NATS") {
		t.Errorf("without keys: %v\n%s", err, out)
	}
}
