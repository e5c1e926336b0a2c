package keys

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// Dir is a key directory seen as a store of named PEM files, such as a certificate authority's key and certificate, beside
// the master.
type Dir string

// nameOK bounds names to what is safe in a path.
var nameOK = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// Store writes text, which must be PEM all through, under a name of [a-z0-9-] (0600, atomic, durable before it returns).
// It makes the directory where it is missing, and returns ErrExists where the name is taken.
func (d Dir) Store(name string, text []byte) error { return d.put(name, text, false) }

// Replace is Store for a name that may be taken: readers see the old text or the new one, never a part.
func (d Dir) Replace(name string, text []byte) error { return d.put(name, text, true) }

func (d Dir) put(name string, text []byte, replace bool) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := checkPEM(name, text); err != nil {
		return err
	}
	if err := makeDir(string(d)); err != nil {
		return err
	}
	return write(string(d), name+".pem", text, replace)
}

// Load returns what was stored under name; ErrMissing, ErrMode or ErrFormat where that cannot be used.
func (d Dir) Load(name string) ([]byte, error) { return d.get(name, true) }

// LoadMounted is Load without a look at modes; see OpenMounted.
func (d Dir) LoadMounted(name string) ([]byte, error) { return d.get(name, false) }

func (d Dir) get(name string, strict bool) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	text, err := read(filepath.Join(string(d), name+".pem"), strict)
	if err != nil {
		return nil, err
	}
	return text, checkPEM(name, text)
}

// Mounted is a Dir whose modes the platform guards; see OpenMounted.
type Mounted Dir

// Load is Dir's LoadMounted.
func (m Mounted) Load(name string) ([]byte, error) { return Dir(m).LoadMounted(name) }

func checkName(name string) error {
	if !nameOK.MatchString(name) {
		return fmt.Errorf("keys: %q is no name for a key file: use 1 to 64 of a-z, 0-9 and -", name)
	}
	return nil
}

// checkPEM wants at least one block and nothing but space after the last.
func checkPEM(name string, text []byte) error {
	rest, blocks := text, 0
	for {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		rest, blocks = after, blocks+1
	}
	for _, c := range rest {
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return fmt.Errorf("%w: %s is not PEM to its end", ErrFormat, name)
		}
	}
	if blocks == 0 {
		return fmt.Errorf("%w: %s holds no PEM block", ErrFormat, name)
	}
	return nil
}

// makeDir makes dir private and durable. A directory that exists already keeps its mode, and is refused if that is open.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keys: make the directory: %w", err)
	}
	if err := checkMode(dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir)) // the entry of dir itself
}

// write puts data into dir/name whole or not at all: it is complete and on disk under another name before it gets its own.
func write(dir, name string, data []byte, replace bool) (err error) {
	path := filepath.Join(dir, name)
	tmp, err := os.CreateTemp(dir, ".new-*") // mode 0600 from its first moment
	if err != nil {
		return fmt.Errorf("keys: write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // after a rename there is nothing left to remove

	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("keys: write %s: %w", path, err)
	}
	if replace {
		err = os.Rename(tmp.Name(), path)
	} else {
		err = os.Link(tmp.Name(), path) // unlike a rename it fails where the name is taken, even by a racing process
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %s: move it away yourself if nothing needs it any more", ErrExists, path)
	case err != nil:
		return fmt.Errorf("keys: write %s: %w", path, err)
	}
	return syncDir(dir)
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("keys: sync %s: %w", dir, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keys: sync %s: %w", dir, err)
	}
	return nil
}
