package proof

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/clock"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	processes = 3
	callers   = 32
	atOnce    = 4             // callers of one link
	each      = most / atOnce // operations of one caller on one link
	links     = callers / atOnce
	answerIn  = 10 * time.Second
	// judgeable is how long the operations on one link may take: a signature that was admitted holds it for two minutes, and time is
	// none of the model's.
	judgeable = 100 * time.Second
	// issuedIn is how long a link may take that was asked for: the leader of the record may be killed meanwhile, and the next one too.
	issuedIn = time.Minute
	// never is when an answer comes that never came.
	never = math.MaxInt64
	// checkIn is how long the checker may take for one link.
	checkIn = time.Minute
)

var (
	operations = flag.Int("operations", 20_000, "how many operations there are in TestHistories; fifty times as many in make soak")
	kills      = flag.Duration("kills", 0, "how long after each other leaders are killed in TestHistories; 0 is once, and each 30 s in make soak")
	replayed   = flag.Uint64("seed", 0, "the seed of a run of TestHistories that is to be played again; 0 is another each time")
)

// TestHistories has 32 callers ask 3 processes of the token service for 20 000 operations, a million in make soak, on links that four of
// them share, while connections are reset, Redis is emptied each second, and the leader of the record is killed and comes back. The
// record is three NATS servers that sync always. What every link answered is linearizable: each answer is that of one link at one
// instant between question and answer, and what was never answered happened at one instant or not at all.
//
// What only a page shows (Resolve) may be of the last second, so it is no part of that. It is held to one rule: what was over for more
// than a second is not shown as open.
func TestHistories(t *testing.T) {
	goal, between := *operations, *kills
	if soaking() {
		goal *= 50
		between = cmp.Or(between, 30*time.Second)
	}
	h := newHistories(t)
	h.disturb(between)
	took := clock.Stopwatch()
	h.run(goal)
	t.Logf("seed %d: %v in %v", h.seed, &h.counted, took().Round(time.Millisecond))
	h.counted.exercised(t, goal)
}

// histories is the world in which they happen.
type histories struct {
	*deployment
	t       *testing.T
	seed    uint64
	now     func() time.Duration
	ctx     context.Context //nolint:containedctx // of all callers and disturbers of one test
	clients [callers][processes]tokenv1.LinkServiceClient
	// platforms are the same connections, asked as a platform does.
	platforms [callers][processes]signingv1.SigningRequestServiceClient
	// maker makes the requests, which is none of the operations: nobody cuts it off, or on a slow machine none would ever be made.
	maker   signingv1.SigningRequestServiceClient
	look    tokenv1.LinkServiceClient
	tables  chan *table
	done    chan *table
	counted counts
}

func newHistories(t *testing.T) *histories {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	h := &histories{
		deployment: deploy(t, processes), t: t, seed: cmp.Or(*replayed, rand.Uint64()), now: clock.Stopwatch(), ctx: ctx,
		tables: make(chan *table, links), done: make(chan *table, 4*links),
	}
	for c := range callers {
		for p := range processes {
			conn := h.dial(h.bases[p])
			h.clients[c][p], h.platforms[c][p] = tokenv1.NewLinkServiceClient(conn), signingv1.NewSigningRequestServiceClient(conn)
		}
	}
	calm := h.dial(h.calm)
	h.maker, h.look = signingv1.NewSigningRequestServiceClient(calm), tokenv1.NewLinkServiceClient(calm)
	return h
}

// counts is what there was of everything, so that a run that exercised nothing is seen to be one.
type counts struct {
	operations, unknown, resolved, stale, cuts, flushes, kills, links atomic.Int64
	// slowest is how long the slowest link took to be issued.
	slowest atomic.Int64

	done, refused [acts]atomic.Int64
}

// String writes it for a reader.
func (c *counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations on %d links, %d without an answer; %d connections cut, Redis emptied %d times, %d leaders killed; %d pages, %d of them of the last second; the slowest link took %v;",
		c.operations.Load(), c.links.Load(), c.unknown.Load(), c.cuts.Load(), c.flushes.Load(), c.kills.Load(), c.resolved.Load(), c.stale.Load(), time.Duration(c.slowest.Load()))
	for a := range acts {
		fmt.Fprintf(&b, " %s %d/%d", actNames[a], c.done[a].Load(), c.refused[a].Load())
	}
	return b.String()
}

// exercised fails a run in which something did not happen.
func (c *counts) exercised(t *testing.T, goal int) {
	t.Helper()
	if n := c.operations.Load(); n < int64(goal) {
		t.Errorf("%d operations, want %d", n, goal)
	}
	for what, n := range map[string]*atomic.Int64{"unknown answers": &c.unknown, "cuts": &c.cuts, "flushes": &c.flushes, "leader kills": &c.kills, "pages": &c.resolved} {
		if n.Load() == 0 {
			t.Errorf("no %s", what)
		}
	}
	for a := range acts {
		if c.done[a].Load() == 0 || a != look && a != finish && c.refused[a].Load() == 0 {
			t.Errorf("%s: %d done and %d refused", actNames[a], c.done[a].Load(), c.refused[a].Load())
		}
	}
}

// run has all operations done, and checks each link's as soon as they are.
func (h *histories) run(goal int) {
	h.t.Helper()
	var work errgroup.Group
	work.Go(func() error {
		defer close(h.tables)
		for n := 0; n < goal; {
			made, err := h.makeTables(fmt.Sprint("histories ", n))
			if err != nil {
				return err
			}
			for _, table := range made {
				if n < goal {
					h.tables <- table
					n += most
				}
			}
		}
		return nil
	})
	var playing errgroup.Group
	for i := range links {
		playing.Go(func() error {
			for table := range h.tables {
				if err := h.play(i, table); err != nil {
					return err
				}
				h.done <- table
			}
			return nil
		})
	}
	work.Go(func() error {
		defer close(h.done)
		err := playing.Wait()
		for range h.tables { // nobody waits for a player that is gone
		}
		return err
	})
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() error {
			var failed error
			for table := range h.done {
				failed = errors.Join(failed, h.judge(table))
			}
			return failed
		})
	}
	if err := work.Wait(); err != nil {
		h.t.Fatalf("seed %d: %v\n%v", h.seed, err, &h.counted)
	}
}

// judge checks the history of one link.
func (h *histories) judge(table *table) error {
	first, last := table.history[0].Call, int64(0)
	for _, op := range table.history {
		first = min(first, op.Call)
		if op.Return != never {
			last = max(last, op.Return)
		}
	}
	if took := time.Duration(last - first); took > judgeable {
		return fmt.Errorf("%s: %v for %d operations is too slow to judge", table.link, took, most)
	}
	result := porcupine.CheckOperationsTimeout(linkModel, table.history, checkIn)
	if result == porcupine.Ok {
		h.counted.links.Add(1)
		return table.pages(&h.counted)
	}
	slices.SortFunc(table.history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	lines := make([]string, 0, len(table.history))
	for _, op := range table.history {
		lines = append(lines, describe(op))
	}
	return fmt.Errorf("%s: the checker says %s\n%s", table.link, result, strings.Join(lines, "\n"))
}

// disturb cuts connections and empties Redis until the test ends, and kills the leader of the record: once, or again and again.
func (h *histories) disturb(again time.Duration) {
	var all sync.WaitGroup
	ctx, stop := context.WithCancel(h.ctx)
	h.t.Cleanup(func() { stop(); all.Wait() })
	random := rand.New(rand.NewPCG(h.seed, 1)) //nolint:gosec // a failing test is played again by its seed
	all.Go(func() {
		every(ctx, 40*time.Millisecond, func() {
			if h.wires[random.IntN(processes)].cut(random.Int()) {
				h.counted.cuts.Add(1)
			}
		})
	})
	all.Go(func() {
		every(ctx, time.Second, func() {
			if h.redis.FlushAll(ctx).Err() == nil {
				h.counted.flushes.Add(1)
			}
		})
	})
	all.Go(func() { every(ctx, 5*time.Minute, func() { h.t.Log(&h.counted) }) })
	all.Go(func() {
		killed := false
		for !killed || again > 0 {
			// The time begins anew after each kill: a server that was killed must be able to catch up before the next one is.
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(again, 5*time.Second)):
			}
			if h.killLeader(ctx) {
				killed = true
				h.counted.kills.Add(1)
			}
		}
	})
}

// killLeader kills the server that leads the record, and starts it again once another leads.
func (h *histories) killLeader(ctx context.Context) bool {
	const record = "FACTS_TOKEN"
	was := h.nats.leader(record)
	if was == "" {
		return false
	}
	h.nats.nodes[was].kill()
	defer h.nats.nodes[was].start()
	led := false
	waiting, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	every(waiting, 100*time.Millisecond, func() {
		if now := h.nats.leader(record); now != "" && now != was {
			led = true
			stop()
		}
	})
	return led
}

// makeTables has a platform make a request of 50 signers, and returns their links once they are issued.
func (h *histories) makeTables(reference string) ([]*table, error) {
	request := &signingv1.SigningRequest{
		Reference: reference, Title: "Histories", Profile: "standard", Documents: []*signingv1.Document{{Name: "a.pdf", Content: []byte("%PDF-1.7 a document")}},
	}
	for i := range 50 {
		request.Signers = append(request.Signers, &signingv1.Signer{Name: fmt.Sprint("Signer ", i), Email: fmt.Sprintf("s%d@example.com", i), Locale: "en", TimeZone: "UTC"})
	}
	var view *signingv1.RequestView
	for try := 0; view == nil; try++ {
		// The reference makes it one request, however often it is asked for.
		answer, err := h.maker.Create(as(h.t, tenant), &signingv1.CreateRequest{Request: request})
		if err != nil && try == 50 {
			return nil, err
		}
		view = answer.GetRequest()
	}
	tables := make([]*table, 0, len(view.GetSigners()))
	for i, s := range view.GetSigners() {
		tables = append(tables, newTable(h, view.GetId(), s.GetId(), h.seed+uint64(i)))
	}
	took := clock.Stopwatch()
	for _, table := range tables {
		if !h.issued(table.link) {
			return nil, fmt.Errorf("%s of %s was not issued within %v\n%s", table.link, view.GetId(), issuedIn, h.nats.state("FACTS_TOKEN"))
		}
	}
	h.counted.slowest.Store(max(h.counted.slowest.Load(), int64(took())))
	return tables, nil
}

// issued waits until there is a link, and tells whether there is.
func (h *histories) issued(link string) (issued bool) {
	ctx, stop := context.WithTimeout(h.ctx, issuedIn)
	defer stop()
	every(ctx, 5*time.Millisecond, func() {
		answer, err := h.look.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: link})
		if err == nil && answer.GetLink().GetGeneration() == 1 {
			issued = true
			stop()
		}
	})
	return issued
}
