package eventlog

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/clock"
)

const (
	// walkPage is how many messages are visited at once: each trip to another server costs a turn of the processor.
	walkPage = 1024
	// walkVisitors is how many pages are visited at the same time.
	walkVisitors = 4
	// walkAhead is how many messages the server may send before they are read.
	walkAhead = 4096
	// walkRounds bounds how often what was published during a walk is looked for.
	walkRounds = 8
	// listingFor is how long the list of a stream's subjects may take: it comes by 100 000, some seconds for a million, which is more
	// than a client waits that is not told.
	listingFor = 5 * time.Minute
)

// Walk reads a stream of facts straight through to find the newest message of each subject. Where there are few messages a subject
// that is several times as fast as asking for each newest one, and where there are many it is not much slower.
type Walk struct {
	log    *Log
	filter string
	// left counts the messages of each subject that were there when the walk was made and were not read yet: the newest is the
	// one that leaves none. No message of a stream of facts is ever deleted.
	left     map[string]uint64
	messages uint64
}

// subjects looks at a stream, and how many messages there are of each subject under a filter.
func (l *Log) subjects(ctx context.Context, filter string) (*jetstream.StreamInfo, error) {
	listing, cancel := context.WithTimeout(ctx, listingFor)
	defer cancel()
	info, err := l.stream.Info(listing, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, fmt.Errorf("eventlog: list subjects of %s: %w", l.name, err)
	}
	return info, nil
}

// Walk gets ready to read all facts under a filter such as fact.token.>.
func (l *Log) Walk(ctx context.Context, filter string) (*Walk, error) {
	info, err := l.subjects(ctx, filter)
	if err != nil {
		return nil, err
	}
	w := &Walk{log: l, filter: filter, left: info.State.Subjects}
	if w.left == nil {
		w.left = map[string]uint64{}
	}
	for _, n := range w.left {
		w.messages += n
	}
	return w, nil
}

// Messages is how many messages there are to read.
func (w *Walk) Messages() uint64 { return w.messages }

// Subjects is how many subjects there are.
func (w *Walk) Subjects() int { return len(w.left) }

// Has tells whether there is a message on a subject. Not while Each runs.
func (w *Walk) Has(subject string) bool { _, has := w.left[subject]; return has }

// Tenants returns whose facts there are, in order.
func (w *Walk) Tenants() ([]string, error) {
	seen := map[string]bool{}
	var tenants []string
	for subject := range w.left {
		_, _, k, err := ParseSubject(subject)
		if err != nil {
			return nil, err
		}
		if !seen[k.Tenant] {
			seen[k.Tenant] = true
			tenants = append(tenants, k.Tenant)
		}
	}
	slices.Sort(tenants)
	return tenants, nil
}

// Each calls visit with the newest message of each subject, some of them at a time, and read with how many messages it took to find
// them. What is published meanwhile is visited too: so a subject may come again, with a newer message. Both functions are called by
// several goroutines at once. A walk is taken once.
func (w *Walk) Each(ctx context.Context, read func(messages int), visit func(ctx context.Context, page []Entry) error) error {
	next := uint64(1)
	for range walkRounds {
		last, err := w.round(ctx, next, read, visit)
		if err != nil {
			return err
		}
		if last < next {
			return nil // nothing was published during the round before
		}
		next = last + 1
	}
	return nil
}

// round reads what there is from a sequence on and returns the last sequence it read, after everything was visited.
func (w *Walk) round(ctx context.Context, from uint64, read func(int), visit func(context.Context, []Entry) error) (last uint64, err error) {
	messages, pending, err := w.log.through(ctx, w.filter, from)
	if err != nil || pending == 0 {
		return 0, err
	}
	defer messages.Stop()
	g, ctx := errgroup.WithContext(ctx)
	pages := make(chan []Entry)
	var unvisited atomic.Int64 // messages read since the last page that was told
	for range walkVisitors {
		g.Go(func() error {
			for page := range pages {
				if err := visit(ctx, page); err != nil {
					return err
				}
				read(int(unvisited.Swap(0)))
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(pages)
		var page []Entry
		for ; pending > 0; pending-- {
			e, err := nextOf(ctx, messages)
			if err != nil {
				return fmt.Errorf("eventlog: read %s through: %w", w.log.name, err)
			}
			last = e.Sequence
			unvisited.Add(1)
			if !w.newest(e.Subject) {
				continue
			}
			if page = append(page, e); len(page) == walkPage {
				if !send(ctx, pages, page) {
					return ctx.Err()
				}
				page = nil
			}
		}
		if len(page) > 0 && !send(ctx, pages, page) {
			return ctx.Err()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return 0, err
	}
	read(int(unvisited.Swap(0)))
	return last, nil
}

// through reads a stream from a sequence on. pending is how many messages there are; where there are none, messages is nil.
func (l *Log) through(ctx context.Context, filter string, from uint64) (messages jetstream.MessagesContext, pending uint64, err error) {
	config := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from}
	if !slices.Equal(l.stream.CachedInfo().Config.Subjects, []string{filter}) { // without a filter the server need not match each subject
		config.FilterSubjects = []string{filter}
	}
	consumer, err := l.js.OrderedConsumer(ctx, l.name, config)
	if err != nil {
		return nil, 0, fmt.Errorf("eventlog: read %s through: %w", l.name, err)
	}
	if pending = consumer.CachedInfo().NumPending; pending == 0 {
		return nil, 0, nil
	}
	if messages, err = consumer.Messages(jetstream.PullMaxMessages(walkAhead)); err != nil {
		return nil, 0, fmt.Errorf("eventlog: read %s through: %w", l.name, err)
	}
	return messages, pending, nil
}

// ReadRate reads what there is under a filter and does nothing with it, for at most so long, and returns how many messages a second
// that were; 0 where there are none. What does more with each message is compared with it.
func (l *Log) ReadRate(ctx context.Context, filter string, most time.Duration) (float64, error) {
	elapsed := clock.Stopwatch()
	messages, pending, err := l.through(ctx, filter, 1)
	if err != nil || pending == 0 {
		return 0, err
	}
	defer messages.Stop()
	n := uint64(0)
	for n < pending && elapsed() < most {
		if _, err := nextOf(ctx, messages); err != nil {
			return 0, fmt.Errorf("eventlog: read %s through: %w", l.name, err)
		}
		n++
	}
	return float64(n) / max(elapsed(), time.Nanosecond).Seconds(), nil
}

// newest counts a message off and tells whether it is the newest of its subject that is known of.
func (w *Walk) newest(subject string) bool {
	left := w.left[subject]
	if left > 1 {
		w.left[subject] = left - 1
		return false
	}
	w.left[subject] = 0
	return true
}

func nextOf(ctx context.Context, messages jetstream.MessagesContext) (Entry, error) {
	m, err := messages.Next(jetstream.NextContext(ctx))
	if err != nil {
		return Entry{}, err
	}
	meta, err := m.Metadata()
	if err != nil {
		return Entry{}, err
	}
	return Entry{Subject: m.Subject(), Sequence: meta.Sequence.Stream, Header: m.Headers(), Data: m.Data(), Time: meta.Timestamp}, nil
}

func send(ctx context.Context, to chan<- []Entry, page []Entry) bool {
	select {
	case to <- page:
		return true
	case <-ctx.Done():
		return false
	}
}
