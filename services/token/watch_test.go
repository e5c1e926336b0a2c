package token_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

// watching is a watch as its platform reads it.
type watching struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[signingv1.WatchLinksResponse]
	stop   context.CancelFunc
	cursor string
	beats  int
}

func (w *world) watch(of string, req *signingv1.WatchLinksRequest) *watching {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(as(w.t, of), time.Minute)
	w.t.Cleanup(cancel)
	return watchOn(w.t, ctx, cancel, w.platform, req)
}

func watchOn(t *testing.T, ctx context.Context, stop context.CancelFunc, client signingv1.LinkServiceClient, req *signingv1.WatchLinksRequest) *watching {
	t.Helper()
	stream, err := client.WatchLinks(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	x := &watching{t: t, stream: stream, stop: stop}
	got, err := stream.Recv()
	if err != nil || got.GetEvent() != nil || got.GetCursor() == "" {
		t.Fatalf("a watch begins with %v, %v", got, err)
	}
	x.cursor = got.GetCursor()
	return x
}

// next returns the next event, or the error that ends the watch.
func (x *watching) next() (*signingv1.LinkEvent, error) {
	for {
		got, err := x.stream.Recv()
		if err != nil {
			return nil, err
		}
		x.cursor = got.GetCursor()
		if got.GetEvent() != nil {
			return got.GetEvent(), nil
		}
		x.beats++
	}
}

func (x *watching) event() *signingv1.LinkEvent {
	x.t.Helper()
	e, err := x.next()
	if err != nil {
		x.t.Fatal(err)
	}
	return e
}

// inWords is an event in words: type, generation and state.
func inWords(e *signingv1.LinkEvent) string {
	return fmt.Sprintf("%s %d %s", strings.TrimPrefix(e.GetType().String(), "LINK_EVENT_TYPE_"), e.GetLink().GetGeneration(), strings.TrimPrefix(e.GetLink().GetState().String(), "LINK_STATE_"))
}

func TestLinksAreWatched(t *testing.T) {
	w := start(t)
	w.service.BeatEvery(50 * time.Millisecond)
	w.createAll(lease("before"))
	watch := w.watch(tenant, &signingv1.WatchLinksRequest{})
	foreign := w.watch("globex", &signingv1.WatchLinksRequest{})
	r := w.createAll(lease("a"))[0]
	link := r.GetSigners()[0].GetId()
	text := w.mint(link, 1)
	w.sent(link, r.GetId(), 1)
	w.settled()
	w.mustRedeem(text, "ada")
	if _, err := w.signing.ReissueLink(as(t, tenant), &signingv1.ReissueLinkRequest{Id: r.GetId(), Signer: "1"}); err != nil {
		t.Fatal(err)
	}
	w.NATS.Restart()
	eventlogtest.Eventually(t, "the link is revoked after the restart", func() bool {
		_, err := w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: r.GetId(), Signer: "1"})
		return err == nil
	})
	want := []string{"ISSUED 1 OPEN", "MINTED 1 OPEN", "SENT 1 OPEN", "OPENED 1 USED", "REISSUED 2 OPEN", "REVOKED 2 REVOKED"}
	var got, cursors []string
	for range want {
		e := watch.event()
		if e.GetLink().GetId() != link || e.GetLink().GetRequestId() != r.GetId() || e.GetAt() == nil {
			t.Errorf("told %v", e)
		}
		got, cursors = append(got, inWords(e)), append(cursors, watch.cursor)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("told (-want +got)\n%s", diff)
	}
	// From every cursor on the rest is told, whoever was told what before.
	for i, cursor := range cursors {
		again := w.watch(tenant, &signingv1.WatchLinksRequest{After: cursor})
		for _, wanted := range want[i+1:] {
			if e := inWords(again.event()); e != wanted {
				t.Errorf("behind event %d: %s, want %s", i, e, wanted)
			}
		}
		again.stop()
	}
	filtered := w.watch(tenant, &signingv1.WatchLinksRequest{FromStart: true, RequestId: r.GetId(), State: signingv1.LinkState_LINK_STATE_USED})
	if e := inWords(filtered.event()); e != want[3] {
		t.Errorf("filtered: %s", e)
	}
	// A tenant of which nothing is told is told so, its cursor moves on, and tells nothing.
	begun := foreign.cursor
	for range 3 {
		if _, err := foreign.stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	m, err := foreign.stream.Recv()
	if err != nil || m.GetEvent() != nil || len(m.GetCursor()) != len(begun) || len(begun) != len(cursors[0]) {
		t.Errorf("a foreign tenant is told %v, %v", m, err)
	}
	_, err = w.refusedWatch(tenant, &signingv1.WatchLinksRequest{After: m.GetCursor()})
	refused(t, err, failure.RequestInvalid)
}

// refusedWatch returns how a watch begins.
func (w *world) refusedWatch(of string, req *signingv1.WatchLinksRequest) (*signingv1.WatchLinksResponse, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(as(w.t, of), time.Minute)
	defer cancel()
	stream, err := w.platform.WatchLinks(ctx, req)
	if err != nil {
		w.t.Fatal(err)
	}
	return stream.Recv()
}

func TestWatchesRefused(t *testing.T) {
	w := start(t)
	made := w.createAll(lease("a"))
	page, err := w.platform.ListLinks(as(t, tenant), &signingv1.ListLinksRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	cursor := page.GetWatchCursor()
	for name, tt := range map[string]struct {
		of   string
		req  *signingv1.WatchLinksRequest
		want *failure.Error
		path string
	}{
		"no cursor":               {tenant, &signingv1.WatchLinksRequest{After: "4711"}, failure.RequestInvalid, "after"},
		"another's cursor":        {"globex", &signingv1.WatchLinksRequest{After: cursor}, failure.RequestInvalid, "after"},
		"a changed cursor":        {tenant, &signingv1.WatchLinksRequest{After: "A" + cursor[1:]}, failure.RequestInvalid, "after"},
		"a cursor and the start":  {tenant, &signingv1.WatchLinksRequest{After: cursor, FromStart: true}, failure.RequestInvalid, "from_start"},
		"behind the record's end": {tenant, &signingv1.WatchLinksRequest{After: w.service.CursorAt(tenant, 1<<40)}, failure.CursorGone, ""},
		"a foreign request":       {"globex", &signingv1.WatchLinksRequest{RequestId: made[0].GetId()}, failure.RequestUnknown, ""},
		"a missing request":       {"globex", &signingv1.WatchLinksRequest{RequestId: "req_missing"}, failure.RequestUnknown, ""},
	} {
		_, err := w.refusedWatch(tt.of, tt.req)
		got := refused(t, err, tt.want)
		if tt.path != "" && (len(got.Fields) != 1 || got.Fields[0].Path != tt.path) {
			t.Errorf("%s: fields %v, want %s", name, got.Fields, tt.path)
		}
	}
	for _, tt := range []struct {
		first, last, after uint64
		want               bool
	}{{0, 0, 0, true}, {1, 9, 0, true}, {1, 9, 9, true}, {1, 9, 10, false}, {5, 9, 4, true}, {5, 9, 3, false}} {
		if token.Covers(tt.first, tt.last, tt.after) != tt.want {
			t.Errorf("a record from %d to %d has what followed %d: not %v", tt.first, tt.last, tt.after, tt.want)
		}
	}
	var open []*watching
	for range token.WatchesPerTenant {
		open = append(open, w.watch(tenant, &signingv1.WatchLinksRequest{}))
	}
	_, err = w.refusedWatch(tenant, &signingv1.WatchLinksRequest{})
	refused(t, err, failure.RateLimited)
	w.watch("globex", &signingv1.WatchLinksRequest{}) // harms nobody else
	open[0].stop()
	eventlogtest.Eventually(t, "there is room again", func() bool {
		_, err := w.refusedWatch(tenant, &signingv1.WatchLinksRequest{})
		return err == nil
	})
}

// happen publishes so many facts of links of the tenant and returns the generation that each led to.
func (w *world) happen(n int) {
	w.t.Helper()
	for i := range n {
		k := eventlog.Key{Tenant: []string{tenant, "globex"}[i%2], ID: fmt.Sprintf("lnk_made%d", i%7)}
		l := &tokenv1.Link{Profile: &tokenv1.Profile{Name: strings.Repeat("long", 400)}, Id: k.ID, Tenant: k.Tenant, RequestId: "req_made", Generation: uint32(i) + 1, Status: tokenv1.LinkStatus_LINK_STATUS_OPEN}
		w.Publish(token.Name, k, "req_made", &tokenv1.LinkReissued{Generation: uint32(i) + 1}, l)
	}
}

// TestAWatchIsCutAtRandom: however often a watch breaks off, each thing is told once to whoever goes on behind what was handled.
func TestAWatchIsCutAtRandom(t *testing.T) {
	w := start(t)
	w.service.BeatEvery(2 * time.Millisecond)
	const n = 600
	done := make(chan struct{})
	cursor := w.watch(tenant, &signingv1.WatchLinksRequest{}).cursor
	go func() { defer close(done); w.happen(n) }()
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that can be repeated
	want := uint32(1)
	cuts := 0
	for ; want <= n; cuts++ {
		watch := w.watch(tenant, &signingv1.WatchLinksRequest{After: cursor})
		for range random.IntN(40) {
			got, err := watch.stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if e := got.GetEvent(); e != nil {
				if e.GetLink().GetGeneration() != want {
					t.Fatalf("told %d, want %d, after %d cuts", e.GetLink().GetGeneration(), want, cuts)
				}
				want += 2
			}
			cursor = got.GetCursor()
			if want > n {
				break
			}
		}
		watch.stop()
	}
	<-done
	t.Logf("%d cuts", cuts)
}

// TestAWatchGoesAsFastAsItsReader: whoever does not read is sent no more than fits into the connection, and misses nothing.
func TestAWatchGoesAsFastAsItsReader(t *testing.T) {
	w := start(t)
	const n = 800
	w.happen(n)
	watch := w.watch(tenant, &signingv1.WatchLinksRequest{FromStart: true})
	stream, err := w.JS.Stream(t.Context(), eventlog.FactsStream(token.Name))
	if err != nil {
		t.Fatal(err)
	}
	pending := func() (left uint64) {
		for info := range stream.ListConsumers(t.Context()).Info() {
			if info.Config.Durable == "" {
				left += info.NumPending
			}
		}
		return left
	}
	last, same := uint64(0), 0
	eventlogtest.Eventually(t, "the reader on the server stands still", func() bool {
		now := pending()
		if same++; now != last || now == 0 {
			last, same = now, 0
		}
		return same > 20
	})
	if last < n/2-200 {
		t.Errorf("%d of %d were left to read while nobody read", last, n/2)
	}
	for want := uint32(1); want <= n; want += 2 {
		if got := watch.event().GetLink().GetGeneration(); got != want {
			t.Fatalf("told %d, want %d", got, want)
		}
	}
}

// TestAWatchEndsWithTheServer by a failure that says to come back.
func TestAWatchEndsWithTheServer(t *testing.T) {
	w := start(t)
	client, stop := w.public(300 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := watchOn(t, ctx, cancel, client, &signingv1.WatchLinksRequest{})
	stop()
	_, err := watch.next()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("it ends with %v", err)
	}
	w.watch(tenant, &signingv1.WatchLinksRequest{After: watch.cursor})
}
