package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	// Many subjects in one trip; kept by the makers of nats.go.
	"github.com/synadia-io/orbit.go/jetstreamext"
	"google.golang.org/protobuf/proto"
)

// sweepPage is how many aggregates are read in one trip; the server answers at most 1024 (mechanisms 4).
const sweepPage = 1000

// Sweep calls visit with the newest state of every aggregate under a filter such as fact.reminder.> whose id begins with
// prefix, a page at a time. It never uses a last-per-subject consumer, which stalls over sparse sequences (nats-server #7821).
func Sweep[S proto.Message](ctx context.Context, a *Aggregate[S], filter, prefix string, visit func(k Key, state S, sequence uint64) error) error {
	info, err := a.log.subjects(ctx, filter)
	if err != nil {
		return err
	}
	subjects := make([]string, 0, len(info.State.Subjects))
	for s := range info.State.Subjects {
		if strings.HasPrefix(s[strings.LastIndexByte(s, '.')+1:], prefix) {
			subjects = append(subjects, s)
		}
	}
	slices.Sort(subjects)
	return a.newest(ctx, subjects, func(subject string, v version[S]) error {
		_, _, k, err := ParseSubject(subject)
		if err != nil {
			return err
		}
		return visit(k, v.state, v.sequence)
	})
}

// ReadMany returns aggregates for showing, in the order of keys and in as few trips as is decent: from any replica, up to a moment old.
// The zero state where there is none.
func (a *Aggregate[S]) ReadMany(ctx context.Context, keys []Key) ([]S, error) {
	states, subjects, places := make([]S, len(keys)), make([]string, len(keys)), make(map[string]int, len(keys))
	for i, k := range keys {
		if err := k.Validate(); err != nil {
			return nil, err
		}
		subjects[i] = FactSubject(a.service, k)
		states[i], places[subjects[i]] = zero[S](), i
	}
	err := a.newest(ctx, subjects, func(subject string, v version[S]) error {
		states[places[subject]] = v.state
		return nil
	})
	return states, err
}

// newest visits the newest message of each subject that has one, a page at a time.
func (a *Aggregate[S]) newest(ctx context.Context, subjects []string, visit func(subject string, v version[S]) error) error {
	for page := range slices.Chunk(subjects, sweepPage) {
		messages, err := jetstreamext.GetLastMsgsFor(ctx, a.log.js, a.log.name, page)
		if err != nil {
			return fmt.Errorf("eventlog: read a page of %s: %w", a.log.name, err)
		}
		for m, err := range messages {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				break
			}
			if err != nil {
				return fmt.Errorf("eventlog: read a page of %s: %w", a.log.name, err)
			}
			v, err := a.decode(Entry{Sequence: m.Sequence, Data: m.Data})
			if err != nil {
				return err
			}
			if err := visit(m.Subject, v); err != nil {
				return err
			}
		}
	}
	return nil
}
