package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/natsserver/powertest"
)

// powered is an instance on such a disk, and what it acknowledged.
type powered struct {
	*instance
	disk *powertest.Disk

	mu       sync.Mutex
	accepted map[string]string // request id to address of its signer
	begun    map[string]bool   // somebody may have signed
	signed   map[string]bool   // and was told so
}

func newPowered(t *testing.T, flags ...string) *powered {
	t.Helper()
	d := powertest.NewDisk(t)
	p := &powered{
		instance: newInstance(t, calmSettings, append(quickFlags, flags...)...), disk: d,
		accepted: map[string]string{}, begun: map[string]bool{}, signed: map[string]bool{},
	}
	p.data = filepath.Join(d.Mount, "data")
	t.Cleanup(p.kill) // before the disk is unmounted
	return p
}

// perRound is the most that one caller asks for between two power cuts, so that the mailbox lists all of it.
const perRound = 12

// busy accepts requests, a few each second, and has one person after the other sign, until ctx ends. It notes what was acknowledged.
func (p *powered) busy(ctx context.Context, round int) {
	var all sync.WaitGroup
	for caller := range 2 {
		all.Go(func() {
			tick := time.NewTicker(300 * time.Millisecond)
			defer tick.Stop()
			for i := 0; i < perRound && ctx.Err() == nil; i++ {
				email := fmt.Sprintf("p%d-%d-%d@example.com", round, caller, i)
				var v view
				status, err := call(ctx, http.MethodPost, p.Addresses.HTTP+"/v1/requests", request(email, "calm", email), &v)
				if err == nil && status == http.StatusCreated {
					p.note(func() { p.accepted[v.ID] = email })
				}
				<-tick.C
			}
		})
	}
	all.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			for id, email := range p.open() {
				p.note(func() { p.begun[id] = true })
				if p.person(email).signs(ctx, id, 1) == nil {
					p.note(func() { p.signed[id] = true })
				}
			}
		}
	})
	all.Wait()
}

func (p *powered) note(what func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what()
}

// open returns what was accepted and is not known to be signed.
func (p *powered) open() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string]string{}
	for id, email := range p.accepted {
		if !p.signed[id] {
			out[id] = email
		}
	}
	return out
}

// lost returns what was acknowledged and is not there.
func (p *powered) lost(ctx context.Context, t *testing.T) []string {
	t.Helper()
	var missing []string
	for id := range p.accepted {
		v, err := p.look(ctx, id)
		switch {
		case err != nil:
			t.Fatal(err)
		case v.ID != id:
			missing = append(missing, id+" was accepted")
		case p.signed[id] && v.Signers[0].Status != "SIGNER_STATUS_SIGNED":
			missing = append(missing, id+" was signed and is "+v.Signers[0].Status)
		}
	}
	return missing
}

// outage lets it work until so much was acknowledged, then cuts the power and gives it back.
func (p *powered) outage(ctx context.Context, t *testing.T, round, accepted, signed int) {
	t.Helper()
	accepted, signed = accepted+len(p.accepted), signed+len(p.signed)
	working, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	work.Go(func() { p.busy(working, round) })
	eventually(ctx, t, fmt.Sprintf("%d requests are accepted and %d signed", accepted, signed), func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.accepted) >= accepted && len(p.signed) >= signed
	})
	p.disk.Cut()
	p.kill()
	stop()
	work.Wait()
	p.disk.Restore()
}

// TestPowerCut cuts the power five times while requests are accepted and signed. All that was acknowledged is there after each, and in
// the end everything was done once.
func TestPowerCut(t *testing.T) {
	p := newPowered(t)
	ctx := within(t, 3*time.Minute)
	p.start("")
	const cuts = 5
	for round := range cuts {
		p.outage(ctx, t, round, 3+round, round%2) // while requests come in; every other time right after a signature
		p.start("")
		for _, what := range p.lost(ctx, t) {
			t.Errorf("after power cut %d: %s", round+1, what)
		}
	}
	for id, email := range p.open() {
		if len(p.signed) >= 4 {
			break
		}
		if err := p.person(email).signs(ctx, id, 1); err != nil {
			t.Fatal(err)
		}
		p.signed[id] = true
	}
	for id := range p.signed {
		p.completed(t, ctx, id)
	}
	o := p.oracle(t)
	o.quiet(ctx)
	o.memo = map[string][]*jetstream.RawStreamMsg{}
	o.nothingDead(ctx)
	for id, email := range p.accepted {
		told := o.outcomes(ctx, id)
		if p.signed[id] || p.begun[id] && slices.Contains(told, "completed") { // the power was cut before the signer was told
			o.completedOnce(ctx, id, email, 1)
			continue
		}
		if len(told) != 1 || o.linkMails(ctx, email) == 0 {
			t.Errorf("request %s: the platform was told %v, and %d mails have a link", id, told, o.linkMails(ctx, email))
		}
		o.chain(ctx, id)
	}
	t.Logf("%d power cuts, %d requests, %d of them signed", cuts, len(p.accepted), len(p.signed))
	p.stop()
}

// TestPowerCutWithoutSync shows that the test before would see a loss: on a record that is synced later, a power cut loses what was
// acknowledged. The loss is not silent: the next start refuses it by name.
func TestPowerCutWithoutSync(t *testing.T) {
	p := newPowered(t, "--sync-every", "2m", "--allow-lazy-sync")
	ctx := within(t, 2*time.Minute)
	p.start("")
	p.disk.Sync() // the streams were made, and survive
	p.outage(ctx, t, 0, 12, 0)
	// What a consumer has heard lies in files of its own: it depends on the moment which of them the loss is seen by.
	p.refuses(t, "stream")
	if said := p.logs.String(); !strings.Contains(said, "went back in time") && !strings.Contains(said, "are damaged") {
		t.Errorf("it refused for another reason: %s", tail(said, 2000))
	}
}
