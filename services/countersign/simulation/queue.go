package simulation

import (
	"container/heap"
	"time"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
)

// item is something that will happen.
type item struct {
	at    time.Time
	order uint64 // of what was queued for the same instant
	about *request
	run   func()
}

type queue struct {
	items  items
	queued uint64
}

type items []*item

func (q items) Len() int { return len(q) }
func (q items) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].order < q[j].order
}
func (q items) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *items) Push(x any) { *q = append(*q, x.(*item)) } //nolint:errcheck,forcetypeassert // the heap's own

// Pop implements heap.Interface.
func (q *items) Pop() any {
	last := len(*q) - 1
	it := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return it
}

// pop returns what happens next; nil when nothing does.
func (q *queue) pop() *item {
	if len(q.items) == 0 {
		return nil
	}
	return heap.Pop(&q.items).(*item) //nolint:errcheck,forcetypeassert // the heap's own
}

// at has something happen at a time. A request waits for everything that is about it.
func (w *world) at(r *request, when time.Time, run func()) {
	if r != nil {
		r.waiting++
	}
	w.queue.queued++
	heap.Push(&w.queue.items, &item{at: when, order: w.queue.queued, about: r, run: run})
}

// in has something happen after a while.
func (w *world) in(r *request, d time.Duration, run func()) { w.at(r, w.now.Add(d), run) }

// ackWait is how long the server waits for an acknowledgement before it delivers again.
const ackWait = 30 * time.Second

// patience is how often a message may come back before that counts as for ever.
const patience = 400

// crashed is the death of a handler between two effects.
type crashed struct{}

// point is a place at which a handler may die.
func (w *world) point() {
	if w.fuse > 0 {
		if w.fuse--; w.fuse == 0 {
			panic(crashed{})
		}
	}
}

// perhapsDying runs a handler which may die at any of its points; then it returns true.
func (w *world) perhapsDying(do func() error) (died bool, err error) {
	if w.oneIn(30) {
		w.fuse = 1 + w.rng.IntN(8)
	}
	defer func() {
		w.fuse = 0
		if p := recover(); p != nil {
			if _, dead := p.(crashed); !dead {
				panic(p)
			}
			w.faults["handler died"]++
			died, err = true, nil
		}
	}()
	return false, do()
}

// deliver hands a message to a handler: at least once, late, more than once, until it is acknowledged.
func (w *world) deliver(r *request, what string, after time.Duration, handle func() error) {
	w.delivery(r, what, after, 1, handle)
}

func (w *world) delivery(r *request, what string, after time.Duration, n int, handle func() error) {
	w.in(r, after, func() {
		if n > patience {
			w.fail(r, "%s comes back for ever", what)
		}
		if w.oneIn(60) {
			w.faults["delivery lost"]++
			w.delivery(r, what, ackWait, n+1, handle)
			return
		}
		died, err := w.perhapsDying(handle)
		switch f := failure.From(err); {
		case died:
			w.delivery(r, what, ackWait, n+1, handle)
		case err == nil && w.oneIn(40):
			w.faults["acknowledgement lost"]++
			w.delivery(r, what, ackWait+w.soon(10*time.Minute), n+1, handle)
		case err == nil:
		case f != nil && f.Retryable:
			w.delivery(r, what, min(30*time.Second, 100*time.Millisecond<<min(n-1, 10)), n+1, handle)
		default:
			w.fail(r, "%s goes to the dead letters: %v", what, err)
		}
	})
}

// latency is how long a message is on its way: mostly nothing, and now and then as long as a consumer is away, of all times when it matters.
func (w *world) latency(e *event) time.Duration {
	away := 150
	if _, signed := e.fact.(*ceremonyv1.CeremonySigned); signed {
		away = 8
	}
	if w.oneIn(away) {
		w.faults["consumer away"]++
		return w.upTo(20 * time.Minute)
	}
	return w.soon(2 * time.Second)
}
