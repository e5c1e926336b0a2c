package eventlog

import (
	"context"
	"errors"
	"fmt"
)

// ErrBehind means that the leader of a stream does not have yet what was heard from another server.
var ErrBehind = errors.New("eventlog: the leader is behind what was heard")

// heardKey is under what a context has the event that is reacted to.
type heardKey struct{}

// hearing returns a context for the reaction to an event: what it reads of the event's stream as the leader has it is not older.
//
// That does not go without saying. Each server hands out what it has stored, also while the leader is still storing it: of 30 000 facts
// that were heard from a server that does not lead, 14 were not at the leader yet. A handler that finds no request takes it for one that
// has nothing to do, and nobody hears the fact again.
func hearing(ctx context.Context, e Event) context.Context {
	return context.WithValue(ctx, heardKey{}, e)
}

// heard returns the sequence of the event that is reacted to, where it is one of this stream.
func (l *Log) heard(ctx context.Context) uint64 {
	if e, is := ctx.Value(heardKey{}).(Event); is && e.Stream == l.name {
		return e.Sequence
	}
	return 0
}

// saw notes that the leader has the stream up to a sequence. The next leader leads once it has what this one had.
func (l *Log) saw(sequence uint64) {
	for {
		led := l.led.Load()
		if sequence <= led || l.led.CompareAndSwap(led, sequence) {
			return
		}
	}
}

// presentTo is present for a reaction: ErrBehind where the leader does not have yet what the reaction has heard.
func (l *Log) presentTo(ctx context.Context, subject string) (Entry, error) {
	heard := l.heard(ctx)
	if l.led.Load() >= heard {
		return l.present(ctx, subject)
	}
	e, err := l.present(ctx, subject)
	if e.Sequence >= heard || err != nil && !errors.Is(err, ErrNotFound) {
		return e, err
	}
	// It has rested since, or the leader is behind.
	_, last, err := l.Bounds(ctx)
	if err != nil {
		return Entry{}, err
	}
	if l.saw(last); last < heard {
		return Entry{}, fmt.Errorf("%w: %s is at %d, and %d was heard", ErrBehind, l.name, last, heard)
	}
	return l.present(ctx, subject)
}
