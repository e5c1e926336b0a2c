package keys

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"countersign.dev/pkg/crash"
)

// ErrBusy means that another process is rotating the master just now.
var ErrBusy = errors.New("another rotation of the master key is running")

// Rotation is the change to another master, in files that survive a crash at any point:
//
//	next.key made            Prepare: all processes can read what will be under it
//	origin.key, former-*.key copies of what master.key still is
//	next.key -> master.key   Switch, by one rename: new data are under it
//	former-*.key removed     Retire, once nothing is under that one any more
//
// Each step looks at what is there and does what is missing, so a rotation that was interrupted is finished by beginning it again.
// Release lets others rotate.
type Rotation struct {
	dir  string
	lock *os.File
	all  masters
}

// Rotate takes the right to rotate the master of a directory; ErrBusy where somebody else has it. It changes nothing yet.
func (d Dir) Rotate() (*Rotation, error) {
	r := &Rotation{dir: string(d)}
	var err error
	if r.all, err = readMasters(r.dir, true); err != nil {
		return nil, err
	}
	if r.lock, err = os.Open(r.dir); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(ErrBusy, r.lock.Close())
	}
	if r.all, err = readMasters(r.dir, true); err != nil { // as it is now that nobody else changes it
		return nil, errors.Join(err, r.lock.Close())
	}
	return r, nil
}

// Release lets others rotate.
func (r *Rotation) Release() error { return r.lock.Close() }

// Current names the master that new data are under.
func (r *Rotation) Current() string { return r.all.current.id }

// Next names the master that is prepared; "" where none is.
func (r *Rotation) Next() string {
	if r.all.next == nil {
		return ""
	}
	return r.all.next.id
}

// Former names the masters that data may still be under.
func (r *Rotation) Former() []string {
	var ids []string
	for _, m := range r.all.former {
		ids = append(ids, m.id)
	}
	return ids
}

// Prepare makes the next master, unless there is one.
func (r *Rotation) Prepare() error {
	if r.all.next != nil {
		return nil
	}
	key := make([]byte, MasterSize)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	if err := write(r.dir, nextFile, key, false); err != nil {
		return err
	}
	crash.Point("rotate.prepared")
	return r.look()
}

// Switch makes the next master the one that new data are under. Without a next one it does nothing.
func (r *Rotation) Switch() error {
	if r.all.next == nil {
		return nil
	}
	current := r.all.current
	for _, name := range []string{originFile, formerPrefix + current.id + keySuffix} {
		if err := write(r.dir, name, current.key[:], false); err != nil && !errors.Is(err, ErrExists) {
			return err
		}
		crash.Point("rotate.copied")
	}
	if err := os.Rename(filepath.Join(r.dir, nextFile), filepath.Join(r.dir, masterFile)); err != nil {
		return fmt.Errorf("keys: switch to the next master: %w", err)
	}
	crash.Point("rotate.switched")
	if err := syncDir(r.dir); err != nil {
		return err
	}
	return r.look()
}

// Retire removes a former master. What is still under it cannot be read any more: only whoever has looked may say so.
func (r *Rotation) Retire(id string) error {
	if !r.all.isFormer(id) {
		return fmt.Errorf("keys: %q is no former master", id)
	}
	path := filepath.Join(r.dir, formerPrefix+id+keySuffix)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keys: retire a master: %w", err)
	}
	if err := syncDir(r.dir); err != nil {
		return err
	}
	return r.look()
}

func (r *Rotation) look() (err error) {
	r.all, err = readMasters(r.dir, true)
	return err
}
