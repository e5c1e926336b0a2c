package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	// Many subjects in one trip; kept by the makers of nats.go.
	"github.com/synadia-io/orbit.go/jetstreamext"
	"google.golang.org/protobuf/proto"
)

// sweepPage is how many aggregates are read in one trip; the server answers at most 1024 (mechanisms 4).
const sweepPage = 1000

// Sweep calls visit with the newest state of every aggregate under a filter such as fact.reminder.> whose id begins with
// prefix, a page at a time. It never uses a last-per-subject consumer, which stalls over sparse sequences (nats-server #7821).
func Sweep[S proto.Message](ctx context.Context, a *Aggregate[S], filter, prefix string, visit func(k Key, state S, sequence uint64) error) error {
	info, err := a.log.stream.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return fmt.Errorf("eventlog: list subjects of %s: %w", a.log.name, err)
	}
	subjects := make([]string, 0, len(info.State.Subjects))
	for s := range info.State.Subjects {
		if strings.HasPrefix(s[strings.LastIndexByte(s, '.')+1:], prefix) {
			subjects = append(subjects, s)
		}
	}
	slices.Sort(subjects)
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
			_, _, k, err := ParseSubject(m.Subject)
			if err != nil {
				return err
			}
			v, err := a.decode(Entry{Sequence: m.Sequence, Data: m.Data})
			if err != nil {
				return err
			}
			if err := visit(k, v.state, v.sequence); err != nil {
				return err
			}
		}
	}
	return nil
}
