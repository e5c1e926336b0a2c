package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"

	"countersign.dev/pkg/keys"
)

const (
	keySize  = 32 // AES-256
	saltSize = 32
	idSize   = 8 // bytes of keys.Ring.ID

	// First bytes. A tombstone is followed by the sequence of the key that it buries, 8 bytes, 0 = there was none.
	tombstone = 0
	version1  = 1

	// The labels are part of the format on disk.
	kekLabel  = "cs.vault.kek.v1"
	sealLabel = "cs.vault.seal.v1"
)

// Sealer encrypts what must be kept but belongs to no owner, such as a message among the dead letters.
type Sealer struct {
	ring *keys.Ring
	made sync.Map // id of a master to its *underMaster
}

// underMaster is what is derived from one master key.
type underMaster struct {
	id      [idSize]byte // so that a wrong one is named
	kek     []byte       // wraps data keys
	sealing []byte       // for Seal
}

// NewSealer returns a sealer under the ring's newest master key, whichever that is at the moment. It needs no streams.
func NewSealer(ring *keys.Ring) *Sealer { return &Sealer{ring: ring} }

// under derives from a master once: there are few.
func (s *Sealer) under(m keys.Master) *underMaster {
	if u, ok := s.made.Load(m.ID()); ok {
		return u.(*underMaster) //nolint:errcheck,forcetypeassert // nothing else is stored
	}
	u := &underMaster{kek: m.Derive(kekLabel, keySize), sealing: m.Derive(sealLabel, keySize)}
	if n, err := hex.Decode(u.id[:], []byte(m.ID())); err != nil || n != idSize {
		panic("vault: a master's id has changed its form")
	}
	s.made.Store(m.ID(), u)
	return u
}

// newest is what new data are sealed under.
func (s *Sealer) newest() *underMaster { return s.under(s.ring.Master()) }

// Seal encrypts plaintext under the master key. It is not erased with anybody: keep what was sealed no longer than needed.
func (s *Sealer) Seal(plaintext []byte) ([]byte, error) {
	u := s.newest()
	return seal(u.header(), u.sealing, bind("sealed", "", ""), plaintext)
}

// Unseal returns what Seal was given, or ErrWrongKey or ErrDamaged.
func (s *Sealer) Unseal(sealed []byte) ([]byte, error) {
	u, box, err := s.body(sealed)
	if err != nil {
		return nil, err
	}
	return open(box, u.sealing, bind("sealed", "", ""))
}

// wrap encrypts a data key for its owner.
func (s *Sealer) wrap(key []byte, p Place) ([]byte, error) {
	u := s.newest()
	return seal(u.header(), u.kek, bind("key", p.Tenant, p.Owner), key)
}

// unwrap returns the data key of a message of the keys stream; ErrErased for a tombstone.
func (s *Sealer) unwrap(wrapped []byte, p Place) ([]byte, error) {
	if isTombstone(wrapped) {
		return nil, ErrErased
	}
	u, box, err := s.body(wrapped)
	if err != nil {
		return nil, err
	}
	return open(box, u.kek, bind("key", p.Tenant, p.Owner))
}

func (s *Sealer) sealValue(key []byte, p Place, plaintext []byte) ([]byte, error) {
	return seal([]byte{version1}, key, bind("value", p.Tenant, p.Owner, p.ID), plaintext)
}

func (s *Sealer) openValue(key []byte, p Place, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != version1 {
		return nil, fmt.Errorf("%w: not a value of this version", ErrDamaged)
	}
	return open(sealed[1:], key, bind("value", p.Tenant, p.Owner, p.ID))
}

// open reads a value through its wrapped key.
func (s *Sealer) open(p Place, wrapped, sealed []byte) ([]byte, error) {
	key, err := s.unwrap(wrapped, p)
	if err != nil {
		return nil, err
	}
	return s.openValue(key, p, sealed)
}

// header leads what is under the master key: the version, and which master key.
func (u *underMaster) header() []byte { return append([]byte{version1}, u.id[:]...) }

// masterIn names the master that something is sealed under; "" where it does not say.
func masterIn(sealed []byte) string {
	if len(sealed) < 1+idSize || sealed[0] != version1 {
		return ""
	}
	return hex.EncodeToString(sealed[1 : 1+idSize])
}

// body finds the master that the header names, and returns what follows.
func (s *Sealer) body(sealed []byte) (*underMaster, []byte, error) {
	id := masterIn(sealed)
	if id == "" {
		return nil, nil, fmt.Errorf("%w: not a box of this version", ErrDamaged)
	}
	m, ok := s.ring.MasterOf(id)
	if !ok {
		return nil, nil, wrongKey(id, s.ring)
	}
	return s.under(m), sealed[1+idSize:], nil
}

func wrongKey(id string, ring *keys.Ring) error {
	return fmt.Errorf("%w: it is under %s, this process has %s: start it with the key directory that belongs to these data", ErrWrongKey, id, ring.Master().ID())
}

// newTombstone marks an owner as erased. It names the message that is to be overwritten, so that whoever finds it can finish.
func newTombstone(keySequence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{tombstone}, keySequence)
}

func isTombstone(data []byte) bool { return len(data) == 1+8 && data[0] == tombstone }

// bind returns what is authenticated beside a ciphertext: bytes that are moved to another kind, tenant, owner or id do not open there.
// Each part is led by its length.
func bind(parts ...string) []byte {
	var b []byte
	for _, part := range parts {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(part))), part...)
	}
	return b
}

// seal appends salt and AES-256-GCM ciphertext to dst. Keys here live for years and seal any number of messages, which
// random 96-bit nonces allow only 2^32 of (NIST SP 800-38D 8.3). So each message has an AES key of its own, derived from the
// key and a random salt of 256 bits, and the nonce of that key's only message may be zero.
func seal(dst, key, aad, plaintext []byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	gcm, err := once(key, salt)
	if err != nil {
		return nil, err
	}
	return gcm.Seal(append(dst, salt...), make([]byte, gcm.NonceSize()), plaintext, aad), nil //nolint:gosec // the key is of this message alone
}

// open is the reverse of seal, without dst.
func open(box, key, aad []byte) ([]byte, error) {
	if len(box) < saltSize {
		return nil, fmt.Errorf("%w: too short", ErrDamaged)
	}
	gcm, err := once(key, box[:saltSize])
	if err != nil {
		return nil, err
	}
	plaintext, err := gcm.Open(nil, make([]byte, gcm.NonceSize()), box[saltSize:], aad)
	if err != nil {
		return nil, ErrDamaged // whatever it was, the cipher tells no more
	}
	return plaintext, nil
}

// once returns the cipher of one message.
func once(key, salt []byte) (cipher.AEAD, error) {
	messageKey, err := hkdf.Key(sha256.New, key, salt, "cs.vault.message.v1", keySize)
	if err != nil {
		return nil, fmt.Errorf("vault: derive a message key: %w", err)
	}
	block, err := aes.NewCipher(messageKey)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	return gcm, nil
}
