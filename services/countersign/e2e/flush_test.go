package e2e

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/gateway/pages"
)

// TestRedisEmptiedAllTheTime empties Redis before every step of a person and every few milliseconds besides: what was used stays
// used, the session goes on, and all of it happens once.
func TestRedisEmptiedAllTheTime(t *testing.T) {
	in := newInstance(t, calmSettings, quickFlags...)
	in.start("")
	ctx := within(t, 3*time.Minute)
	flush, end := flushing(ctx, t, in.Addresses.Redis)

	const email = "flushed@example.com"
	v, err := in.create(ctx, request("flushed", "calm", email))
	if err != nil {
		t.Fatal(err)
	}
	p := in.person(email)
	link := await(ctx, t, p.Signer, withLink).Link()
	other := p.OtherBrowser()
	before := get(ctx, t, other, link) // the button of this page was there while the link was good
	p.page = press(ctx, t, p.Signer, get(ctx, t, p.Signer, link), nil)
	if p.page.Status != http.StatusOK {
		t.Fatalf("redeeming leads to %s", describe(p.page))
	}
	acting := true
	p.before = func(int) {
		flush()
		refusedElsewhere(t, get(ctx, t, other, link), acting)
		flush()
		refusedElsewhere(t, press(ctx, t, other, before, nil), acting)
		flush()
		if p.page != nil {
			_, err := p.page.Form(pages.FieldName)
			acting = err != nil // the next step signs: from then on the link says so
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
	facts := o.stated(ctx, "token", v.ID)
	if facts["LinkRedeemed"] != 1 || facts["LinkResumed"] != 0 || facts["LinkReissued"] != 0 {
		t.Errorf("one session from beginning to end was wanted; token stated %v", facts)
	}
	if n := end(); n < 100 {
		t.Errorf("Redis was emptied only %d times", n)
	}
	in.stop()
}

// refusedElsewhere checks what another browser is shown of a link that is used.
func refusedElsewhere(t *testing.T, p *signer.Page, acting bool) {
	t.Helper()
	if p.Status != http.StatusConflict || acting && !says(p, failure.LinkUsed) {
		t.Fatalf("another browser is shown %s", describe(p))
	}
}

// flushing empties a Redis every few milliseconds until end is called, and whenever flush is; end tells how often it did.
func flushing(ctx context.Context, t *testing.T, address string) (flush func(), end func() int64) {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: address})
	ctx, cancel := context.WithCancel(ctx)
	var times atomic.Int64
	flush = func() {
		if err := rdb.FlushAll(ctx).Err(); err != nil && ctx.Err() == nil {
			t.Errorf("flush: %v", err)
		}
		times.Add(1)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				flush()
			}
		}
	}()
	end = sync.OnceValue(func() int64 {
		cancel()
		<-done
		_ = rdb.Close()
		return times.Load()
	})
	t.Cleanup(func() { end() })
	return flush, end
}
