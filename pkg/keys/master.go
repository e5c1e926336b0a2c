package keys

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Files of a key directory beside masterFile.
const (
	originFile   = "origin.key" // the first master, once it was rotated
	nextFile     = "next.key"   // the master that a rotation is about to change to
	formerPrefix = "former-"    // + id + keySuffix: masters that data are still under
	keySuffix    = ".key"
)

// Master is a key that data are sealed under. It prints as its id. The zero Master seals nothing.
type Master struct {
	key [MasterSize]byte
	id  string
}

func newMaster(key []byte) (Master, error) {
	if len(key) != MasterSize {
		return Master{}, fmt.Errorf("%w: a master key has %d bytes, this one has %d", ErrFormat, MasterSize, len(key))
	}
	m := Master{}
	copy(m.key[:], key)
	m.id = hex.EncodeToString(m.expand("id", "", 8))
	return m, nil
}

// ID names the master without revealing it: 16 hexadecimal digits. Before the first rotation it is the ring's.
func (m Master) ID() string { return m.id }

// Derive is Ring.Derive under this master.
func (m Master) Derive(label string, n int) []byte { return m.expand("key", label, n) }

// String returns the id.
func (m Master) String() string { return "keys.Master(" + m.id + ")" }

// Format writes the id for every verb: the key must not be printed.
func (m Master) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, m.String()) }

// LogValue returns the id.
func (m Master) LogValue() slog.Value { return slog.StringValue(m.String()) }

// masters are those of a directory at one moment.
type masters struct {
	current Master
	next    *Master
	former  []Master
	stamp   fs.FileInfo // of the file of the current one
}

func (a masters) isFormer(id string) bool {
	for _, m := range a.former {
		if m.id == id {
			return true
		}
	}
	return false
}

// find returns a master by its id.
func (a masters) find(id string) (Master, bool) {
	all := append([]Master{a.current}, a.former...)
	if a.next != nil {
		all = append(all, *a.next)
	}
	for _, m := range all {
		if m.id == id {
			return m, true
		}
	}
	return Master{}, false
}

// Master returns the master that new data are sealed under. A process that runs while it is rotated finds the new one by itself:
// each call looks at the file, which takes microseconds. Where that cannot be read, the one from before holds.
func (r *Ring) Master() Master {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir != "" {
		info, err := os.Stat(filepath.Join(string(r.dir), masterFile))
		if err == nil && (!os.SameFile(info, r.masters.stamp) || !info.ModTime().Equal(r.masters.stamp.ModTime())) {
			r.reload()
		}
	}
	return r.masters.current
}

// MasterOf returns the master with an id, which data name that are sealed under it; false where this directory does not have it.
func (r *Ring) MasterOf(id string) (Master, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, ok := r.masters.find(id)
	if !ok && r.dir != "" {
		r.reload()
		m, ok = r.masters.find(id)
	}
	return m, ok
}

// reload reads the masters anew. What was known stays known: data may still be under a master whose file is gone.
func (r *Ring) reload() {
	all, err := readMasters(string(r.dir), r.strict)
	if err != nil {
		return
	}
	for _, known := range append(r.masters.former, r.masters.current) {
		if _, ok := all.find(known.id); !ok {
			all.former = append(all.former, known)
		}
	}
	r.masters = all
}

// readMasters reads all masters of a directory.
func readMasters(dir string, strict bool) (masters, error) {
	var all masters
	path := filepath.Join(dir, masterFile)
	for {
		before, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return all, missing(path)
		} else if err != nil {
			return all, fmt.Errorf("keys: look at %s: %w", path, err)
		}
		if all.current, err = readMaster(path, strict); err != nil {
			return all, err
		}
		after, err := os.Stat(path)
		if err == nil && os.SameFile(before, after) && before.ModTime().Equal(after.ModTime()) {
			all.stamp = after
			break
		} // else it was replaced just now
	}
	switch next, err := readMaster(filepath.Join(dir, nextFile), strict); {
	case err == nil:
		all.next = &next
	case !errors.Is(err, ErrMissing):
		return all, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return all, fmt.Errorf("keys: look into %s: %w", dir, err)
	}
	for _, e := range entries {
		id, is := strings.CutPrefix(strings.TrimSuffix(e.Name(), keySuffix), formerPrefix)
		if !is || !strings.HasSuffix(e.Name(), keySuffix) {
			continue
		}
		former, err := readMaster(filepath.Join(dir, e.Name()), strict)
		if errors.Is(err, ErrMissing) {
			continue // retired just now
		} else if err != nil {
			return all, err
		}
		if former.id != id {
			return all, fmt.Errorf("%w: %s holds the master %s: restore it from the backup", ErrFormat, filepath.Join(dir, e.Name()), former.id)
		}
		if former.id != all.current.id { // a rotation that stopped right before its switch
			all.former = append(all.former, former)
		}
	}
	return all, nil
}

// readMaster reads one file; ErrMissing where there is none.
func readMaster(path string, strict bool) (Master, error) {
	key, err := read(path, strict)
	if err != nil {
		return Master{}, err
	}
	if len(key) != MasterSize {
		return Master{}, fmt.Errorf("%w: %s holds %d bytes instead of %d: restore it from the backup", ErrFormat, path, len(key), MasterSize)
	}
	return newMaster(key)
}
