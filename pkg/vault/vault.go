// Package vault keeps personal data apart from the record, so that it can be destroyed while the record stays whole.
//
// Everything that belongs to one owner is encrypted with a data key of its own. The data key, wrapped under a key derived from the
// process's master, is a message of a second stream; to erase an owner is to overwrite that message. What was ever written for the
// owner, in whatever old block or backup of the first stream, is then noise, also what no record names any more. An owner stays
// erased: nothing can be put there again.
//
// On replicated streams the servers' raft logs hold a copy of the wrapped data key until they are compacted; encrypt the
// servers' files (jetstream { cipher: aes }) and keep backups of VAULT_KEYS no longer than an erasure may take.
package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
)

// The streams and what stands before <tenant>.<owner>.<id> and <tenant>.<owner> in their subjects.
const (
	ValuesStream = "VAULT"
	KeysStream   = "VAULT_KEYS"

	valuePrefix = "vault."
	keyPrefix   = "vaultkey."
)

const (
	// MaxValue is the longest value in bytes.
	MaxValue = 128 << 10
	// callFor bounds a call whose context has no nearer deadline. A leader that was killed is away for 4 to 7 s.
	callFor = 30 * time.Second
)

// What can become of a read or a write.
var (
	ErrUnknown = errors.New("vault: nothing was ever kept here")
	ErrErased  = errors.New("vault: what was kept here is erased")
	// ErrDamaged means that bytes were changed, or moved here from another id, owner or tenant.
	ErrDamaged = errors.New("vault: what is kept here is not what was put")
	// ErrWrongKey means that it was put under another master key; the text names both.
	ErrWrongKey = errors.New("vault: sealed under another master key")
	ErrInvalid  = errors.New("vault: invalid")
)

// Streams returns the two streams for `init` to make. Values may be overwritten: the newest is kept. Of keys nothing may be
// purged, but single messages can be deleted, which is what erases.
func Streams(replicas int) []jetstream.StreamConfig {
	values := jetstream.StreamConfig{
		Name: ValuesStream, Subjects: []string{valuePrefix + "*.*.*"}, Description: "personal data, encrypted",
		MaxMsgsPerSubject: 1, MaxMsgSize: MaxValue + 4<<10,
	}
	dataKeys := jetstream.StreamConfig{
		Name: KeysStream, Subjects: []string{keyPrefix + "*.*"}, Description: "the wrapped data key of each owner, or its tombstone",
		// No limit of messages a subject: a key that was pushed out by its tombstone could no longer be overwritten.
		DenyPurge: true, MaxMsgSize: 4 << 10,
	}
	all := []jetstream.StreamConfig{values, dataKeys}
	for i := range all {
		all[i].Storage, all[i].Retention, all[i].Discard = jetstream.FileStorage, jetstream.LimitsPolicy, jetstream.DiscardNew
		all[i].Replicas, all[i].AllowDirect, all[i].Duplicates = replicas, true, 2*time.Minute
	}
	return all
}

// Topology is Streams for eventlog.Provision, which sets the replicas itself.
func Topology() eventlog.Topology { return eventlog.Topology{Streams: Streams(1)} }

// Vault keeps, reads and erases. It is safe for concurrent use, by many processes. It writes both streams alone.
type Vault struct {
	*Sealer
	values *eventlog.Log
	keys   *eventlog.Log
	marks  func(stream string, sequence uint64)
}

// Place is where something is kept. Each part is one token of a subject (decisions 5).
type Place struct {
	Tenant string
	Owner  string // what it is erased with
	ID     string
}

// MasterKey is the stream metadata of KeysStream that names the newest master, once it was rotated.
const MasterKey = "countersign-master"

// Open opens the vault on streams that `init` has made, with the master key that its contents are under. ErrWrongKey means that the
// ring does not have it.
func Open(ctx context.Context, js jetstream.JetStream, ring *keys.Ring) (*Vault, error) {
	values, err := eventlog.OpenLog(ctx, js.Conn(), ValuesStream)
	if err != nil {
		return nil, err
	}
	dataKeys, err := eventlog.OpenLog(ctx, js.Conn(), KeysStream)
	if err != nil {
		return nil, err
	}
	if id := dataKeys.Stream().CachedInfo().Config.Metadata[MasterKey]; id != "" {
		if _, ok := ring.MasterOf(id); !ok {
			return nil, wrongKey(id, ring)
		}
	}
	return &Vault{Sealer: NewSealer(ring), values: values, keys: dataKeys, marks: func(string, uint64) {}}, nil
}

// Logs returns both streams, to be checked against their high-water marks.
func (v *Vault) Logs() []*eventlog.Log { return []*eventlog.Log{v.values, v.keys} }

// MarkWith has every acknowledged sequence told to f, which keeps the high-water marks. Call it before the vault is used.
func (v *Vault) MarkWith(f func(stream string, sequence uint64)) {
	v.marks = f
	v.keys.MarkWith(f)
}

// Put keeps plaintext in a place, instead of what was kept there before. Putting what is there already writes nothing. Of several
// that race one is last. After ErrErased nothing is kept. After another error it may be kept or not; put again. plaintext has up to
// MaxValue bytes.
func (v *Vault) Put(ctx context.Context, p Place, plaintext []byte) error {
	_, err := v.put(ctx, p, plaintext, false)
	return err
}

// PutOnce keeps plaintext in a place where nothing is kept yet, and returns what is kept now: plaintext, or what was there first. Of
// several that race all get the same.
func (v *Vault) PutOnce(ctx context.Context, p Place, plaintext []byte) ([]byte, error) {
	return v.put(ctx, p, plaintext, true)
}

func (v *Vault) put(ctx context.Context, p Place, plaintext []byte, once bool) ([]byte, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	if len(plaintext) > MaxValue {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrInvalid, len(plaintext), MaxValue)
	}
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	key, err := v.makeKey(ctx, p)
	if err != nil {
		return nil, err
	}
	kept, err := v.write(ctx, p, key, plaintext, once)
	if err != nil {
		return nil, err
	}
	// An Erase since the key was read may have looked for the value before it was written. Its tombstone comes first, so
	// one of the two finds the value.
	if _, err := v.leaderKey(ctx, p); err != nil {
		if errors.Is(err, ErrErased) {
			err = errors.Join(err, v.deleteValues(ctx, p.valueSubject()))
		}
		return nil, err
	}
	return kept, nil
}

// makeKey returns the data key of an owner, a fresh one where there is none yet.
func (v *Vault) makeKey(ctx context.Context, p Place) ([]byte, error) {
	for {
		key, err := v.leaderKey(ctx, p)
		if !errors.Is(err, ErrUnknown) {
			return key, err
		}
		// One random key an owner: to destroy it destroys what is this owner's and nothing else.
		key = make([]byte, keySize)
		_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
		wrapped, err := v.wrap(key, p)
		if err != nil {
			return nil, err
		}
		_, err = v.keys.Append(ctx, message(p.keySubject(), wrapped), rand.Text(), 0)
		if !errors.Is(err, eventlog.ErrConflict) {
			return key, err
		} // else another was first: its key counts
	}
}

// write encrypts plaintext as the newest value of a place, unless it is that already, or any is there and once is set.
func (v *Vault) write(ctx context.Context, p Place, key, plaintext []byte, once bool) ([]byte, error) {
	for {
		last := uint64(0)
		switch e, err := v.values.LeaderLast(ctx, p.valueSubject()); {
		case err == nil:
			last = e.Sequence
			// What cannot be read is damaged; putting mends it. What can may be ours, from a try whose answer was lost.
			if old, err := v.openValue(key, p, e.Data); err == nil && (once || string(old) == string(plaintext)) {
				return old, nil
			}
		case !errors.Is(err, eventlog.ErrNotFound):
			return nil, fmt.Errorf("vault: look for a value: %w", err)
		}
		sealed, err := v.sealValue(key, p, plaintext)
		if err != nil {
			return nil, err
		}
		// Expecting the value that was seen: a try of somebody else's that was thought lost cannot land on top of ours. Not
		// by Append, which finds out what became of a message where none is ever deleted.
		ack, err := v.values.JetStream().PublishMsg(ctx, message(p.valueSubject(), sealed), jetstream.WithExpectLastSequencePerSubject(last))
		if err == nil {
			v.marks(ValuesStream, ack.Sequence)
			return plaintext, nil
		}
		if !isConflict(err) {
			return nil, fmt.Errorf("vault: keep a value: %w", err)
		}
	}
}

// isConflict reports that another value was written, deleted or is being written.
func isConflict(err error) bool {
	const wrongLastSequence, writeInFlight = 10071, 10164 // nats-server errors.json
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == wrongLastSequence || api.ErrorCode == writeInFlight)
}

// Get returns what is kept in a place. It may be a moment old; what is erased may be read for that moment.
func (v *Vault) Get(ctx context.Context, p Place) ([]byte, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	// Any replica first, then the leader: a replica may not have it yet.
	for _, read := range []func(*eventlog.Log, string) (eventlog.Entry, error){
		func(l *eventlog.Log, subject string) (eventlog.Entry, error) { return l.Last(ctx, subject) },
		func(l *eventlog.Log, subject string) (eventlog.Entry, error) { return l.LeaderLast(ctx, subject) },
	} {
		wrapped, err := read(v.keys, p.keySubject())
		if errors.Is(err, eventlog.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("vault: read a key: %w", err)
		}
		sealed, err := read(v.values, p.valueSubject())
		if errors.Is(err, eventlog.ErrNotFound) && !isTombstone(wrapped.Data) {
			continue
		} else if err != nil && !errors.Is(err, eventlog.ErrNotFound) {
			return nil, fmt.Errorf("vault: read a value: %w", err)
		}
		return v.open(p, wrapped.Data, sealed.Data)
	}
	// The value may have gone with its key between the two reads.
	if _, err := v.leaderKey(ctx, p); err != nil {
		return nil, err
	}
	return nil, ErrUnknown // the owner has a key, and nothing here: never put, or a Put that did not come to its end
}

// leaderKey returns the data key of an owner as the leader has it; ErrUnknown or ErrErased where there is none.
func (v *Vault) leaderKey(ctx context.Context, p Place) ([]byte, error) {
	e, err := v.keys.LeaderLast(ctx, p.keySubject())
	switch {
	case errors.Is(err, eventlog.ErrNotFound):
		return nil, ErrUnknown
	case err != nil:
		return nil, fmt.Errorf("vault: read a key: %w", err)
	}
	return v.unwrap(e.Data, p)
}

func (p Place) validate() error {
	return errors.Join(validate(p.Tenant, p.Owner), validate(p.Tenant, p.ID))
}

func validate(tenant, id string) error {
	if err := (eventlog.Key{Tenant: tenant, ID: id}).Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func (p Place) keySubject() string   { return keyPrefix + p.Tenant + "." + p.Owner }
func (p Place) valueSubject() string { return valuePrefix + p.Tenant + "." + p.Owner + "." + p.ID }

func message(subject string, data []byte) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Data = data
	return m
}
