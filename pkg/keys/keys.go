// Package keys holds a process's key material: a master key in a directory, and every other key derived from it under a
// label that says what it is for. Losing the master loses everything that was sealed under it: it belongs in the backup,
// apart from the data.
//
// The master can be rotated (Dir.Rotate). What is sealed under it, the data keys of people, is then sealed anew under the
// next one. What is derived and cannot be made anew stays with the first one, the origin: ids, keyed hashes, the keys of
// documents and of the NATS server's files. Until the first rotation both are the same key.
package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

const (
	// MasterSize is the length of the master key in bytes.
	MasterSize = 32
	// MaxDerived is the longest key that Derive gives: the bound of HKDF-SHA256 (RFC 5869 2.3).
	MaxDerived = 255 * sha256.Size

	masterFile = "master.key"
)

// What can be wrong with a key directory. The errors of this package wrap one of them and say what to do.
var (
	ErrMissing = errors.New("key material is missing")
	ErrExists  = errors.New("key material is there already")
	ErrMode    = errors.New("key material can be read by others")
	ErrFormat  = errors.New("key material is damaged")
)

// Ring derives keys from the origin, and has the masters that data are sealed under. It is safe for concurrent use and prints as
// its public id.
type Ring struct {
	origin Master
	macs   sync.Map // label to a pool of keyed MACs

	dir     Dir // where masters are read anew; "" = there is one, for good
	strict  bool
	mu      sync.Mutex
	masters masters
}

// NewRing takes an existing master, for example from a key service. It must have MasterSize bytes.
func NewRing(master []byte) (*Ring, error) {
	m, err := newMaster(master)
	if err != nil {
		return nil, err
	}
	return &Ring{origin: m, masters: masters{current: m}}, nil
}

// Create makes the directory (mode 0700) and a fresh master in it (0600), durable before it returns. Where a master exists
// already it changes nothing and returns ErrExists: a new one could not read what the old one sealed.
func Create(dir string) (*Ring, error) {
	master := make([]byte, MasterSize)
	_, _ = rand.Read(master) // never fails: crypto/rand ends the process instead
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := write(dir, masterFile, master, false); err != nil {
		return nil, err
	}
	return Open(dir)
}

// Open reads the master that Create made. Its error is ErrMissing, ErrMode or ErrFormat, and names the remedy.
func Open(dir string) (*Ring, error) { return open(dir, true) }

// OpenMounted is Open for a directory whose modes the platform sets and guards itself, such as a Kubernetes secret volume:
// it does not look at modes.
func OpenMounted(dir string) (*Ring, error) { return open(dir, false) }

func open(dir string, strict bool) (*Ring, error) {
	if strict {
		if err := checkMode(dir); err != nil {
			return nil, err
		}
	}
	all, err := readMasters(dir, strict)
	if err != nil {
		return nil, err
	}
	origin := all.current
	switch first, err := readMaster(filepath.Join(dir, originFile), strict); {
	case err == nil:
		origin = first
	case !errors.Is(err, ErrMissing):
		return nil, err
	case len(all.former) > 0 && !all.isFormer(origin.id):
		return nil, fmt.Errorf("%w: there is no %s, but masters before this one: restore it from the backup", ErrMissing, filepath.Join(dir, originFile))
	}
	return &Ring{origin: origin, dir: Dir(dir), strict: strict, masters: all}, nil
}

// ID names the origin without revealing it: 16 hexadecimal digits. Write it where data is born, and a wrong key is known
// by name before it is used. A rotation does not change it.
func (r *Ring) ID() string { return r.origin.id }

// Derive returns the key of n bytes for a purpose; the same label and n always give the same key. Labels are constants with
// a version, such as "vault.kek.v1", never input. It panics where n is not 1 to MaxDerived.
func (r *Ring) Derive(label string, n int) []byte { return r.expand("key", label, n) }

// MAC authenticates parts for a purpose with HMAC-SHA256 (32 bytes). Each part is preceded by its length, so that moving
// bytes from one part to the next gives another MAC; its keys differ from those of Derive, whatever the label.
// Compare with hmac.Equal.
func (r *Ring) MAC(label string, parts ...[]byte) []byte {
	idle := r.idleMACs(label)
	mac := idle.Get().(hash.Hash) //nolint:errcheck,forcetypeassert // nothing else is put
	defer idle.Put(mac)
	mac.Reset()
	var size [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		mac.Write(size[:])
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// idleMACs keeps a label's MACs for the next use, keyed: labels are constants of the code, so there are few.
func (r *Ring) idleMACs(label string) *sync.Pool {
	if pool, ok := r.macs.Load(label); ok {
		return pool.(*sync.Pool) //nolint:errcheck,forcetypeassert // nothing else is stored
	}
	key := r.expand("mac", label, sha256.Size)
	pool, _ := r.macs.LoadOrStore(label, &sync.Pool{New: func() any { return hmac.New(sha256.New, key) }})
	return pool.(*sync.Pool) //nolint:errcheck,forcetypeassert // as above
}

func (r *Ring) expand(kind, label string, n int) []byte { return r.origin.expand(kind, label, n) }

// expand is HKDF-SHA256 without a salt, which a uniformly random master does not need (RFC 5869 3.1). The kind leads the
// info, closed by a zero byte that no kind contains, so that the kinds cannot meet.
func (m Master) expand(kind, label string, n int) []byte {
	if n < 1 || n > MaxDerived {
		panic(fmt.Sprintf("keys: a derived key has 1 to %d bytes, not %d", MaxDerived, n))
	}
	key, err := hkdf.Key(sha256.New, m.key[:], nil, kind+"\x00"+label, n)
	if err != nil {
		panic("keys: " + err.Error()) // only lengths can be wrong, and they were checked
	}
	return key
}

// String returns the public id.
func (r *Ring) String() string { return "keys.Ring(" + r.origin.id + ")" }

// Format writes the public id for every verb: the fields must not be printed.
func (r *Ring) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue returns the public id.
func (r *Ring) LogValue() slog.Value { return slog.StringValue(r.String()) }

// checkMode refuses what group or others may use in any way.
func checkMode(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return missing(path)
	case err != nil:
		return fmt.Errorf("keys: look at %s: %w", path, err)
	}
	want := fs.FileMode(0o600)
	if info.IsDir() {
		want = 0o700
	}
	if got := info.Mode().Perm(); got&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o: run `chmod %04o %s`, and replace the keys if others may have read them", ErrMode, path, got, want, path)
	}
	return nil
}

func read(path string, strict bool) ([]byte, error) {
	if strict {
		if err := checkMode(path); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, missing(path)
	case err != nil:
		return nil, fmt.Errorf("keys: read %s: %w", path, err)
	}
	return data, nil
}

func missing(path string) error {
	return fmt.Errorf("%w: there is no %s: restore it from the backup, or initialise once if nothing was ever stored under it", ErrMissing, path)
}
