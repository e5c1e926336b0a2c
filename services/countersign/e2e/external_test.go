package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/redisserver"
	"countersign.dev/services/gateway/pages"
)

// TestServersOfOnesOwn runs on a NATS server and a Redis that were given: made ready by `init`, killed in the middle, away when
// somebody signs, and with a record that is not the one it was.
func TestServersOfOnesOwn(t *testing.T) {
	t.Parallel()
	ns := newNATS(t)
	rs, err := redisserver.Start(t.Context(), redisserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rs.Stop)
	in := newInstance(t, calmSettings, append(quickFlags, "--nats", ns.url(), "--redis", rs.Addr())...)
	ctx := within(t, 5*time.Minute)
	initialise := func(more ...string) (string, error) {
		return countersign(ctx, t, append([]string{"init", "--data", in.data, "--nats", ns.url()}, more...)...)
	}

	in.refuses(t, "stream", "is missing", "countersign init")
	if out, err := initialise(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	in.refuses(t, "acknowledges before it syncs", "--allow-lazy-sync") // nobody said where to look
	for range 2 {
		if out, err := initialise("--monitor", ns.monitorURL()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	in.start("")
	if in.Addresses.NATS != ns.url() || in.Addresses.Redis != rs.Addr() {
		t.Errorf("given %s and %s, it says it uses %s and %s", ns.url(), rs.Addr(), in.Addresses.NATS, in.Addresses.Redis)
	}
	killedInTheMiddle(ctx, t, in, ns)
	in.stop()

	ns.kill()
	old := filepath.Join(t.TempDir(), "backup")
	if err := os.CopyFS(old, os.DirFS(ns.dir)); err != nil {
		t.Fatal(err)
	}
	ns.start()
	in.start("")
	awayAtSigning(ctx, t, in, ns)
	in.stop()

	recordIsNotTheOne(ctx, t, in, ns, old)
	if out, err := initialise("--monitor", ns.monitorURL()); err == nil || !strings.Contains(out, "the record is lost") || !strings.Contains(out, "FACTS_IDENTITY") {
		t.Errorf("init should refuse to make a lost stream anew: %v %s", err, out)
	}
}

// killedInTheMiddle has NATS killed and started again between the steps of a person.
func killedInTheMiddle(ctx context.Context, t *testing.T, in *instance, ns *natsProcess) {
	t.Helper()
	const email = "restarted@example.com"
	v, err := in.create(ctx, request("restarted", "calm", email))
	if err != nil {
		t.Fatal(err)
	}
	p := in.person(email)
	restarts := 0
	p.before = func(int) {
		if p.page != nil && restarts < 4 { // with a page of the link, then of the code, then of the document
			restarts++
			ns.kill()
			ns.start()
		}
	}
	if err := p.signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	o := in.oracle(t)
	o.quiet(ctx)
	o.nothingDead(ctx)
	o.completedOnce(ctx, v.ID, email, 1)
	if restarts < 3 {
		t.Errorf("NATS was restarted only %d times", restarts)
	}
}

// awayAtSigning has somebody sign while NATS is away: the page says to try again, nothing is half done, and then it works.
func awayAtSigning(ctx context.Context, t *testing.T, in *instance, ns *natsProcess) {
	t.Helper()
	const email = "away@example.com"
	v, err := in.create(ctx, request("away", "calm", email))
	if err != nil {
		t.Fatal(err)
	}
	p := in.person(email)
	if err := persist(ctx, in, func() error {
		if p.page != nil {
			if _, err := p.page.Form(pages.FieldName); err == nil {
				return nil
			}
		}
		if err := p.step(ctx); err != nil {
			return err
		}
		_, err := p.page.Form(pages.FieldName)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ns.kill()
	sign := map[string]string{pages.FieldAgree: "yes", pages.FieldName: "Testperson"}
	if page := press(ctx, t, p.Signer, p.page, sign); !says(page, failure.Unavailable) {
		t.Errorf("signing without the record leads to %s", describe(page))
	}
	ns.start()
	if now, err := in.look(ctx, v.ID); err != nil || now.Signers[0].Status == "SIGNER_STATUS_SIGNED" {
		t.Errorf("what was refused is half done: %v, %v", now, err)
	}
	if err := p.signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	o := in.oracle(t)
	o.quiet(ctx)
	o.nothingDead(ctx)
	o.completedOnce(ctx, v.ID, email, 1)
}

// recordIsNotTheOne starts on a record that is older than it was, with keys that are not its own, and without one of its streams: each
// is refused by name.
func recordIsNotTheOne(ctx context.Context, t *testing.T, in *instance, ns *natsProcess, old string) {
	t.Helper()
	ns.kill()
	current := ns.dir
	ns.dir = old
	ns.start()
	in.refuses(t, "FACTS_", "went back in time", filepath.Join(in.data, "marks"))
	ns.kill()
	ns.dir = current
	ns.start()

	stranger := newInstance(t, calmSettings, in.flags...)
	stranger.refuses(t, "was made under the keys", "FACTS_")

	nc, err := nats.Connect(ns.url())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(ctx, "FACTS_IDENTITY"); err != nil {
		t.Fatal(err)
	}
	in.refuses(t, "stream FACTS_IDENTITY is missing")
}
