package keys_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"countersign.dev/pkg/keys"
)

func directory(t *testing.T) (keys.Dir, *keys.Ring) {
	t.Helper()
	d := keys.Dir(filepath.Join(t.TempDir(), "keys"))
	r, err := keys.Create(string(d))
	if err != nil {
		t.Fatal(err)
	}
	return d, r
}

func reopen(t *testing.T, d keys.Dir) *keys.Ring {
	t.Helper()
	r, err := keys.Open(string(d))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rotate takes some of the steps of a rotation.
func rotate(t *testing.T, d keys.Dir, steps ...func(*keys.Rotation) error) {
	t.Helper()
	r, err := d.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release() //nolint:errcheck // a lock
	for _, step := range steps {
		if err := step(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRotationKeepsWhatIsDerived(t *testing.T) {
	d, before := directory(t)
	first := before.Master()
	rotate(t, d, (*keys.Rotation).Prepare, (*keys.Rotation).Switch)
	after := reopen(t, d)
	second := after.Master()
	if second.ID() == first.ID() || bytes.Equal(second.Derive("a", 32), first.Derive("a", 32)) {
		t.Error("the master is the one before")
	}
	if after.ID() != before.ID() || !bytes.Equal(after.Derive("a", 32), before.Derive("a", 32)) || !bytes.Equal(after.MAC("a", nil), before.MAC("a", nil)) {
		t.Error("ids or hashes have changed")
	}
	if m, ok := after.MasterOf(first.ID()); !ok || !bytes.Equal(m.Derive("a", 32), first.Derive("a", 32)) {
		t.Error("the former master cannot be used")
	}
	// A process that runs all the while finds the new one by itself.
	if before.Master().ID() != second.ID() {
		t.Error("a running process goes on with the former master")
	}
	rotate(t, d, func(r *keys.Rotation) error { return r.Retire(first.ID()) })
	last := reopen(t, d)
	if _, ok := last.MasterOf(first.ID()); ok || last.ID() != before.ID() || last.Master().ID() != second.ID() {
		t.Errorf("after it was retired: %v, master %v", last, last.Master())
	}
	if _, ok := before.MasterOf(first.ID()); !ok {
		t.Error("a running process forgot a master that data may still be under")
	}
	rotate(t, d, (*keys.Rotation).Prepare, (*keys.Rotation).Switch) // again
	if again := reopen(t, d); again.ID() != before.ID() || again.Master().ID() == second.ID() {
		t.Errorf("a second rotation: %v, master %v", again, again.Master())
	}
}

// TestARunningProcessReadsWhatIsUnderTheNextMaster: prepared and distributed first, the next master opens data in a process whose
// own directory has not been switched yet.
func TestARunningProcessReadsWhatIsUnderTheNextMaster(t *testing.T) {
	d, running := directory(t)
	rotate(t, d, (*keys.Rotation).Prepare)
	r, err := d.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release() //nolint:errcheck // a lock
	if _, ok := running.MasterOf(r.Next()); !ok || running.Master().ID() != r.Current() {
		t.Error("the next master cannot be used, or is used too early")
	}
	if _, ok := running.MasterOf("0123456789abcdef"); ok {
		t.Error("a master that nobody made")
	}
	if _, err := d.Rotate(); !errors.Is(err, keys.ErrBusy) {
		t.Errorf("two rotations at once: %v", err)
	}
}

// TestARotationStoppedAnywhereIsFinished leaves the directory as a crash between any two steps would, and rotates again: it is the
// same rotation, and no key is lost.
func TestARotationStoppedAnywhereIsFinished(t *testing.T) {
	for name, left := range map[string][]string{
		"before anything":       {"master.key"},
		"prepared":              {"master.key", "next.key"},
		"with the origin kept":  {"master.key", "next.key", "origin.key"},
		"with the former kept":  {"master.key", "next.key", "origin.key", "former"},
		"a torn temporary file": {"master.key", "next.key", ".new-1"},
	} {
		t.Run(name, func(t *testing.T) {
			d, ring := directory(t)
			first := ring.Master()
			master, err := os.ReadFile(filepath.Join(string(d), "master.key"))
			if err != nil {
				t.Fatal(err)
			}
			next := bytes.Repeat([]byte{9}, keys.MasterSize)
			for _, file := range left {
				content := master
				switch file {
				case "next.key":
					content = next
				case "former":
					file = "former-" + first.ID() + ".key"
				}
				if err := os.WriteFile(filepath.Join(string(d), file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if r := reopen(t, d); r.ID() != ring.ID() || r.Master().ID() != first.ID() {
				t.Errorf("as it was left: %v, master %v", r, r.Master())
			}
			rotate(t, d, (*keys.Rotation).Prepare, (*keys.Rotation).Switch)
			r := reopen(t, d)
			if _, ok := r.MasterOf(first.ID()); !ok || r.ID() != ring.ID() || r.Master().ID() == first.ID() {
				t.Errorf("finished: %v, master %v", r, r.Master())
			}
			if want, _ := keys.NewRing(next); len(left) > 1 && r.Master().ID() != want.ID() {
				t.Errorf("another rotation was begun: %v", r.Master())
			}
		})
	}
}

func TestADamagedRotationIsNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(d, former string) error
		want  error
		says  string
	}{
		"no origin":             {func(d, _ string) error { return os.Remove(filepath.Join(d, "origin.key")) }, keys.ErrMissing, "origin.key"},
		"a short former":        {func(d, f string) error { return os.Truncate(filepath.Join(d, f), 3) }, keys.ErrFormat, "holds 3 bytes"},
		"a former of another":   {func(d, f string) error { return os.Rename(filepath.Join(d, f), filepath.Join(d, "former-00.key")) }, keys.ErrFormat, "holds the master"},
		"a readable former":     {func(d, f string) error { return os.Chmod(filepath.Join(d, f), 0o644) }, keys.ErrMode, "chmod 0600"},
		"a readable next":       {func(d, _ string) error { return os.WriteFile(filepath.Join(d, "next.key"), make([]byte, 32), 0o644) }, keys.ErrMode, "next.key"},
		"a cut origin":          {func(d, _ string) error { return os.Truncate(filepath.Join(d, "origin.key"), 0) }, keys.ErrFormat, "origin.key"},
		"no master, but a next": {func(d, _ string) error { return os.Remove(filepath.Join(d, "master.key")) }, keys.ErrMissing, "master.key"},
	} {
		t.Run(name, func(t *testing.T) {
			d, ring := directory(t)
			rotate(t, d, (*keys.Rotation).Prepare, (*keys.Rotation).Switch)
			if err := tt.spoil(string(d), "former-"+ring.ID()+".key"); err != nil {
				t.Fatal(err)
			}
			if _, err := keys.Open(string(d)); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestMasterDoesNotPrint(t *testing.T) {
	m := ring(t, 0xAB).Master()
	if out := strings.ToLower(fmt.Sprintf("%v %+v %#v %s %x %q", m, m, m, m, m, struct{ M keys.Master }{m})); strings.Contains(out, "abab") || strings.Contains(out, "171") {
		t.Errorf("printed: %s", out)
	}
}
