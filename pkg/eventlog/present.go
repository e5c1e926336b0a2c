package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// present is LeaderLast for what decides. The server says of a message that it cannot read any more, since its block was damaged, that
// there is none; it still counts it. That is an error and no ErrNotFound: what is lost is not what never was.
func (l *Log) present(ctx context.Context, subject string) (Entry, error) {
	e, err := l.LeaderLast(ctx, subject)
	if !errors.Is(err, ErrNotFound) {
		return e, err
	}
	counted, err := ask(ctx, func(try context.Context) (bool, error) { return l.counts(try, subject) })
	if err != nil {
		return Entry{}, fmt.Errorf("eventlog: look for %s in %s: %w", subject, l.name, err)
	}
	if !counted {
		return Entry{}, ErrNotFound
	}
	// Once more: it may have been stored in between.
	if e, err = l.LeaderLast(ctx, subject); errors.Is(err, ErrNotFound) {
		return e, fmt.Errorf("eventlog: stream %s has messages on %s that cannot be read: blocks of it are damaged; restore it from a backup", l.name, subject)
	}
	return e, err
}

// counts tells whether the leader counts any message of a subject.
func (l *Log) counts(ctx context.Context, subject string) (bool, error) {
	query, err := json.Marshal(map[string]string{"subjects_filter": subject})
	if err != nil {
		return false, err
	}
	reply, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.INFO."+l.name, query)
	if err != nil {
		return false, err
	}
	var info struct {
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &info); err != nil {
		return false, err
	}
	if info.Error != nil {
		return false, info.Error
	}
	return info.State.Subjects[subject] > 0, nil
}
