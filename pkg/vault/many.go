package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	// orbit: the batch get of the NATS makers, which nats.go itself does not have.
	"github.com/synadia-io/orbit.go/jetstreamext"

	"countersign.dev/pkg/eventlog"
)

const (
	// MaxMany is how many ids one GetMany may ask for.
	MaxMany = 1000
	// perBatch is below the server's 1024 subjects and, with values of usual size, its bytes a request.
	perBatch = 256
	// batchFor is how long a batch may take; what it did not bring is then read one by one.
	batchFor = 5 * time.Second
)

// Result is what GetMany found under one id.
type Result struct {
	Value []byte
	Err   error // nil, ErrUnknown, ErrErased, ErrDamaged or ErrWrongKey
}

// GetMany reads several ids of a tenant with few requests: the result has one entry for each id. An error means that the
// streams could not be read; what can be wrong with a single id stands in its Result.
func (v *Vault) GetMany(ctx context.Context, tenant string, ids []string) (map[string]Result, error) {
	if len(ids) > MaxMany {
		return nil, fmt.Errorf("%w: %d ids are more than %d", ErrInvalid, len(ids), MaxMany)
	}
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	results := make(map[string]Result, len(ids))
	places := make([]place, 0, len(ids))
	for _, id := range ids {
		p := place{tenant, id}
		if err := p.validate(); err != nil {
			return nil, err
		}
		if _, twice := results[id]; !twice {
			results[id] = Result{}
			places = append(places, p)
		}
	}
	for len(places) > 0 {
		n := min(perBatch, len(places))
		if err := v.getBatch(ctx, places[:n], results); err != nil {
			return nil, err
		}
		places = places[n:]
	}
	return results, nil
}

func (v *Vault) getBatch(ctx context.Context, places []place, results map[string]Result) error {
	wrapped, err := v.batch(ctx, v.keys, places, place.keySubject)
	if err != nil {
		return err
	}
	sealed, err := v.batch(ctx, v.values, places, place.valueSubject)
	if err != nil {
		return err
	}
	for _, p := range places {
		key, value := wrapped[p.keySubject()], sealed[p.valueSubject()]
		var r Result
		if key != nil && (value != nil || isTombstone(key)) {
			r.Value, r.Err = v.open(p, key, value)
		} else {
			// Not there, not there yet on this replica, or beyond what the server puts in one answer: Get finds out.
			r.Value, r.Err = v.Get(ctx, p.tenant, p.id)
		}
		if r.Err != nil && !ofOneID(r.Err) {
			return r.Err
		}
		results[p.id] = r
	}
	return nil
}

// ofOneID tells what is wrong with an id from what is wrong with the streams.
func ofOneID(err error) bool {
	for _, known := range []error{ErrUnknown, ErrErased, ErrDamaged, ErrWrongKey} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// batch returns the newest messages of the places' subjects, by subject. Some may be missing that are there: the library
// ends without an error when the answer is cut short or does not come.
func (v *Vault) batch(ctx context.Context, log *eventlog.Log, places []place, subject func(place) string) (map[string][]byte, error) {
	subjects := make([]string, len(places))
	for i, p := range places {
		subjects[i] = subject(p)
	}
	found := make(map[string][]byte, len(places))
	ctx, cancel := context.WithTimeout(ctx, v.batchFor)
	defer cancel()
	messages, err := jetstreamext.GetLastMsgsFor(ctx, log.JetStream(), log.Name(), subjects)
	if err != nil {
		return nil, fmt.Errorf("vault: read %s: %w", log.Name(), err)
	}
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("vault: read %s: %w", log.Name(), err)
		}
		found[m.Subject] = m.Data
	}
	return found, nil
}
