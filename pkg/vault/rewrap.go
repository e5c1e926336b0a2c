package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	// orbit: the batch get of the NATS makers, which nats.go itself does not have.
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
)

const (
	rewrapPage    = 256             // messages read at once
	rewrapPageFor = 5 * time.Second // how long that may take
	rewrapWorkers = 16              // keys wrapped at the same time: each is an acknowledged write and an overwrite
)

// Progress shows how far something has come. Read may be called by several goroutines.
type Progress interface {
	Begin(what string, messages uint64)
	Read(messages int)
}

// Rewrapped is what one Rewrap did.
type Rewrapped struct {
	Keys    int64 `json:"keys"`        // messages of keys and tombstones that were looked at
	Wrapped int64 `json:"wrapped"`     // data keys that are under the newest master now and were not before
	Removed int64 `json:"overwritten"` // what they were wrapped in, overwritten on the servers' disks
}

// Rewrap puts every data key under the ring's newest master that is under another one, and overwrites what it was wrapped in. Data stay
// as they are. Services may read, write and erase meanwhile, and it may be cut short at any point: what is under either master can
// be read, and another Rewrap goes on with what is left.
func (v *Vault) Rewrap(ctx context.Context, p Progress) (Rewrapped, error) {
	info, err := v.keys.Stream().Info(ctx)
	if err != nil {
		return Rewrapped{}, fmt.Errorf("vault: look at %s: %w", KeysStream, err)
	}
	p.Begin(KeysStream, info.State.Msgs)
	newest := v.ring.Master().ID()
	var keys, wrapped, removed atomic.Int64
	err = v.everyKey(ctx, func(page []*jetstream.RawStreamMsg) error {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(rewrapWorkers)
		for _, m := range page {
			if isTombstone(m.Data) || masterIn(m.Data) == newest {
				continue
			}
			g.Go(func() error {
				made, err := v.rewrap(ctx, m.Subject, m.Sequence)
				if err != nil {
					return err
				}
				removed.Add(1)
				if made {
					wrapped.Add(1)
				}
				return nil
			})
		}
		err := g.Wait()
		keys.Add(int64(len(page)))
		p.Read(len(page))
		return err
	})
	return Rewrapped{keys.Load(), wrapped.Load(), removed.Load()}, err
}

// rewrap wraps the data key of a message anew, unless something newer stands on its subject: the key wrapped by somebody else, or the
// tombstone of who was erased. Then the message is overwritten. made tells whether it was wrapped here.
func (v *Vault) rewrap(ctx context.Context, subject string, sequence uint64) (made bool, err error) {
	p, err := ownerOf(subject)
	if err != nil {
		return false, err
	}
	for {
		e, err := v.keys.LeaderLast(ctx, subject)
		if errors.Is(err, eventlog.ErrNotFound) {
			return false, nil // erased, and its tombstone is gone with a stream that was made anew
		} else if err != nil {
			return false, fmt.Errorf("vault: read a key: %w", err)
		}
		if e.Sequence != sequence {
			break
		}
		key, err := v.unwrap(e.Data, p)
		if err != nil {
			return false, fmt.Errorf("vault: key %d of %s: %w", sequence, KeysStream, err)
		}
		again, err := v.wrap(key, p)
		if err != nil {
			return false, err
		}
		_, err = v.keys.Append(ctx, message(subject, again), rand.Text(), sequence)
		if err == nil {
			made = true
			crash.Point("rewrap.wrapped")
			break
		}
		if !errors.Is(err, eventlog.ErrConflict) {
			return false, err
		}
	}
	if err := overwrite(ctx, v.keys, sequence); err != nil {
		return made, fmt.Errorf("vault: overwrite a key: %w", err)
	}
	crash.Point("rewrap.overwritten")
	return made, nil
}

// everyKey reads each message of the keys' stream, page by page, up to what the leader has at the end. Messages may be deleted meanwhile.
func (v *Vault) everyKey(ctx context.Context, visit func(page []*jetstream.RawStreamMsg) error) error {
	log := v.keys
	for from := uint64(1); ; {
		page, err := readPage(ctx, log, from)
		if err != nil {
			return fmt.Errorf("vault: read %s: %w", log.Name(), err)
		}
		if len(page) == 0 {
			// The end, or the end of what this replica has yet.
			e, err := log.LeaderNext(ctx, ">", from)
			if errors.Is(err, eventlog.ErrNotFound) {
				return nil
			} else if err != nil {
				return fmt.Errorf("vault: read %s: %w", log.Name(), err)
			}
			page = []*jetstream.RawStreamMsg{{Subject: e.Subject, Sequence: e.Sequence, Header: e.Header, Data: e.Data, Time: e.Time}}
		}
		if err := visit(page); err != nil {
			return err
		}
		from = page[len(page)-1].Sequence + 1
	}
}

func readPage(ctx context.Context, log *eventlog.Log, from uint64) (page []*jetstream.RawStreamMsg, err error) {
	ctx, cancel := context.WithTimeout(ctx, rewrapPageFor)
	defer cancel()
	messages, err := jetstreamext.GetBatch(ctx, log.JetStream(), log.Name(), rewrapPage, jetstreamext.GetBatchSeq(from))
	if err != nil {
		return nil, err
	}
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return nil, err
		}
		page = append(page, m)
	}
	return page, nil
}

// ownerOf is the reverse of keySubject.
func ownerOf(subject string) (Place, error) {
	rest, is := strings.CutPrefix(subject, keyPrefix)
	tenant, owner, two := strings.Cut(rest, ".")
	if !is || !two {
		return Place{}, fmt.Errorf("%w: %s has a message on %s", ErrInvalid, KeysStream, subject)
	}
	return Place{Tenant: tenant, Owner: owner}, validate(tenant, owner)
}

// Stamp writes the newest master into the stream's metadata, so that a process without it is refused by name when it starts.
func (v *Vault) Stamp(ctx context.Context) error {
	info, err := v.keys.Stream().Info(ctx)
	if err != nil {
		return fmt.Errorf("vault: look at %s: %w", KeysStream, err)
	}
	config, newest := info.Config, v.ring.Master().ID()
	if config.Metadata[MasterKey] == newest {
		return nil
	}
	if config.Metadata == nil {
		config.Metadata = map[string]string{}
	}
	config.Metadata[MasterKey] = newest
	if _, err := v.keys.JetStream().UpdateStream(ctx, config); err != nil {
		return fmt.Errorf("vault: write the master into %s: %w", KeysStream, err)
	}
	return nil
}

// Letters counts the dead letters that are sealed, by the master they are under: they are not sealed anew.
func (v *Vault) Letters(ctx context.Context) (map[string]int, error) {
	log, err := eventlog.OpenLog(ctx, v.keys.JetStream().Conn(), eventlog.DeadStream)
	if err != nil {
		return nil, err
	}
	under := map[string]int{}
	for from := uint64(1); ; {
		e, err := log.LeaderNext(ctx, ">", from) // one by one: there are few, and their stream has no direct reads
		if errors.Is(err, eventlog.ErrNotFound) {
			return under, nil
		} else if err != nil {
			return nil, fmt.Errorf("vault: read %s: %w", log.Name(), err)
		}
		if e.Header.Get(eventlog.DeadSealedHeader) != "" {
			under[masterIn(e.Data)]++
		}
		from = e.Sequence + 1
	}
}
