package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	// goccy/go-yaml names line and column of what it refuses, and reads JSON as well.
	"github.com/goccy/go-yaml"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/failure"
)

// maxKeyFile is the largest file of keys that is read, in bytes: some ten thousand keys.
const maxKeyFile = 8 << 20

// Keyring knows API keys. It is safe for concurrent use.
type Keyring struct {
	path   string
	pepper []byte
	now    func() time.Time
	keys   atomic.Pointer[map[string]knownKey]
	read   atomic.Pointer[[]byte] // the file as it was last read, good or not
}

// followEvery is how often Follow looks at the file: how long a key that was taken out is still good.
const followEvery = 2 * time.Second

type knownKey struct {
	Key
	mac  []byte
	nets []netip.Prefix
}

// KeyFile is the file of keys: YAML, or JSON.
type KeyFile struct {
	Keys []Key `json:"keys" yaml:"keys"`
}

// LoadKeyring reads the keys in the file at path (KeyFile). pepper is the key under which they were hashed, at least 32
// bytes; now tells the time. Every wrong entry is named.
func LoadKeyring(path string, pepper []byte, now func() time.Time) (*Keyring, error) {
	k := &Keyring{path: path, pepper: pepper, now: now}
	if len(pepper) < sha256.Size {
		return nil, errPepper
	}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Follow reads the file again when it has changed, within seconds, until ctx ends. Of a file that cannot be used it tells log, once,
// and the keys from before stay known.
func (k *Keyring) Follow(ctx context.Context, log *slog.Logger) error {
	away := false
	return clock.Every(ctx, followEvery, func() error {
		data, err := k.content()
		if err != nil {
			if !away {
				log.ErrorContext(ctx, "the file of API keys was not read; those from before stay", "error", err)
			}
			away = true
			return nil
		}
		away = false
		if last := k.read.Load(); last != nil && bytes.Equal(*last, data) {
			return nil
		}
		if err := k.take(data); err != nil {
			log.ErrorContext(ctx, "the file of API keys is damaged; those from before stay", "error", err)
			return nil
		}
		log.InfoContext(ctx, "the file of API keys was read again", "keys", k.Len())
		return nil
	})
}

// Reload reads the file again: a key added is known, one taken out is refused from then on. After an error the keys from
// before stay known.
func (k *Keyring) Reload() error {
	data, err := k.content()
	if err != nil {
		return err
	}
	return k.take(data)
}

func (k *Keyring) content() ([]byte, error) {
	f, err := os.Open(k.path)
	if err != nil {
		return nil, fmt.Errorf("auth: open the file of API keys: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("auth: read the file of API keys: %w", err)
	}
	return data, nil
}

// take makes the keys in data those that are known.
func (k *Keyring) take(data []byte) error {
	k.read.Store(&data)
	if len(data) > maxKeyFile {
		return fmt.Errorf("auth: %s is larger than %d bytes", k.path, maxKeyFile)
	}
	var file KeyFile
	if err := yaml.UnmarshalWithOptions(data, &file, yaml.Strict()); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("auth: read %s: %w", k.path, err)
	}
	keys, err := index(file.Keys)
	if err != nil {
		return fmt.Errorf("auth: %s: %w", k.path, err)
	}
	k.keys.Store(&keys)
	return nil
}

// Len returns how many keys are known, expired ones included.
func (k *Keyring) Len() int { return len(*k.keys.Load()) }

func index(entries []Key) (map[string]knownKey, error) {
	keys := make(map[string]knownKey, len(entries))
	var wrong []error
	for i, e := range entries {
		problems := e.problems()
		if _, twice := keys[e.ID]; twice {
			problems = append(problems, "id: stands twice")
		}
		if len(problems) > 0 {
			wrong = append(wrong, fmt.Errorf("keys[%d] (%s): %s", i, e.ID, strings.Join(problems, "; ")))
			continue
		}
		known := knownKey{Key: e}
		known.mac, _ = hex.DecodeString(e.HMAC) // problems has checked both
		for _, n := range e.AllowIPs {
			p, _ := netip.ParsePrefix(n)
			known.nets = append(known.nets, p)
		}
		keys[e.ID] = known
	}
	return keys, errors.Join(wrong...)
}

// Authenticate looks for "Bearer csk_live_..." and returns the platform that holds the key. An expired, unknown, mistyped
// or misplaced key is failure.Unauthenticated; which of these is not told.
func (k *Keyring) Authenticate(_ context.Context, e Evidence) (Caller, error) {
	if e.Authorization == "" {
		return Caller{}, ErrAbsent
	}
	scheme, plain, _ := strings.Cut(e.Authorization, " ")
	id, ok := parseKey(plain)
	if !strings.EqualFold(scheme, "Bearer") || !ok {
		return Caller{}, failure.Unauthenticated
	}
	known, found := (*k.keys.Load())[id]
	// The same work for an id that does not exist: time tells nothing about it.
	same := hmac.Equal(keyMAC(k.pepper, plain), known.mac)
	now := k.now()
	if !found || !same || !now.Before(known.Expires) || !known.usableFrom(e) {
		return Caller{}, failure.Unauthenticated
	}
	return Caller{ID: known.ID, Tenant: known.Tenant, Scopes: known.Scopes, Kind: Platform}, nil
}

func (k knownKey) usableFrom(e Evidence) bool {
	if len(k.nets) == 0 {
		return true
	}
	ip, ok := peerIP(e.Peer)
	if !ok {
		return false
	}
	for _, n := range k.nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}
