// Package powertest gives tests a disk whose power can be cut.
package powertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is an ext4 file system in a file.
type Disk struct {
	// Mount is the folder under which it is.
	Mount string
	t     testing.TB
	image string
}

// NewDisk makes and mounts one; where the kernel does not let us, the test is skipped with what it refused.
func NewDisk(t testing.TB) *Disk {
	t.Helper()
	d := &Disk{t: t, image: filepath.Join(t.TempDir(), "disk.img"), Mount: filepath.Join(t.TempDir(), "disk")}
	if err := os.MkdirAll(d.Mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 4<<30); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", d.image).CombinedOutput(); err != nil {
		t.Skipf("no power cut: mkfs.ext4: %v %s", err, out)
	}
	if out, err := d.attach(); err != nil {
		t.Skipf("no power cut: the kernel does not mount a file (root and loop devices are needed): %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", d.Mount).Run() }) //nolint:gosec // a folder of the test
	return d
}

func (d *Disk) attach() ([]byte, error) {
	return exec.Command("mount", "-o", "loop", d.image, d.Mount).CombinedOutput() //nolint:gosec // folders of the test
}

// Cut loses everything that was not synced, as a power cut does (EXT4_IOC_SHUTDOWN without flushing the journal). Where the kernel
// refuses it, the test is skipped.
func (d *Disk) Cut() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.Mount)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.IoctlSetPointerInt(int(f.Fd()), shutdown, noLogFlush); err != nil {
		d.t.Skipf("no power cut: the kernel refuses EXT4_IOC_SHUTDOWN: %v", err)
	}
}

// Sync writes everything to the disk.
func (d *Disk) Sync() {
	d.t.Helper()
	f, err := os.Open(d.Mount)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		d.t.Fatal(err)
	}
}

// Restore gives the power back: the file system is mounted from what is on the disk, once whoever used it is gone.
func (d *Disk) Restore() {
	d.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for exec.Command("umount", d.Mount).Run() != nil { //nolint:gosec // a folder of the test
		select {
		case <-tick.C:
		case <-deadline:
			d.t.Fatal("something still holds the file system")
		}
	}
	if out, err := d.attach(); err != nil {
		d.t.Fatalf("the file system does not come back: %v %s", err, out)
	}
}
