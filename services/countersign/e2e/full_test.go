package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"countersign.dev/pkg/failure"
)

// fill takes all that is free on a disk, and returns how to give it back.
func fill(t *testing.T, mount string) (free func()) {
	t.Helper()
	path := filepath.Join(mount, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what it could not write is the point
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		t.Fatal(err)
	}
	size := int64(st.Bfree) * st.Bsize
	for step := size; step >= st.Bsize; {
		if unix.Fallocate(int(f.Fd()), 0, size-step, step) != nil {
			step /= 2
			continue
		}
		size += step // there may be more
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// readyz asks whether everything is ready, and returns what is said.
func (in *instance) readyz(ctx context.Context) (ready bool, says string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(in.Addresses.Metrics, "/metrics")+"/readyz", http.NoBody)
	if err != nil {
		return false, err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return false, err.Error()
	}
	return res.StatusCode == http.StatusOK, string(body)
}

// TestFullDisk fills the disk of the record. Platforms and signers are refused by name, nothing acknowledged is lost and nothing is half
// done; /readyz says what it is. With space again it goes on by itself: what was refused is done when it is asked for once more.
func TestFullDisk(t *testing.T) {
	if os.Getenv("COUNTERSIGN_SOAK") == "" {
		t.Skip("COUNTERSIGN_SOAK is not set: calls wait for as long as they may; pkg/natsserver has the quick test")
	}
	p := newPowered(t)
	ctx := within(t, 5*time.Minute)
	p.start("")
	const early, late = "early@example.com", "late@example.com"
	first, err := p.create(ctx, request("early", "calm", early))
	if err != nil {
		t.Fatal(err)
	}
	person := p.person(early)
	link := await(ctx, t, person.Signer, withLink).Link()
	page := get(ctx, t, person.Signer, link)

	free := fill(t, p.disk.Mount)
	var refused struct{ Code string }
	status, err := call(ctx, http.MethodPost, p.Addresses.HTTP+"/v1/requests", request("late", "calm", late), &refused)
	if err != nil || status != http.StatusServiceUnavailable || refused.Code != failure.Unavailable.Code {
		t.Errorf("a platform was answered %d %s, %v", status, refused.Code, err)
	}
	if answer := press(ctx, t, person.Signer, page, nil); answer.Status != http.StatusOK && !says(answer, failure.Unavailable) { // a block may have had room for it
		t.Errorf("the signer is shown %s", describe(answer))
	}
	eventually(ctx, t, "/readyz says that the disk is full", func() bool {
		ready, said := p.readyz(ctx)
		return !ready && strings.Contains(said, "disk")
	})
	if v, err := p.look(ctx, first.ID); err != nil || v.ID != first.ID || v.Status != "REQUEST_STATUS_IN_PROGRESS" {
		t.Errorf("what was accepted before reads as %+v, %v", v, err)
	}

	free()
	eventually(ctx, t, "it is ready again by itself", func() bool { ready, _ := p.readyz(ctx); return ready })
	second, err := p.create(ctx, request("late", "calm", late))
	if err != nil {
		t.Fatal(err)
	}
	for id, email := range map[string]string{first.ID: early, second.ID: late} {
		if err := p.person(email).signs(ctx, id, 1); err != nil {
			t.Fatal(err)
		}
		p.completed(t, ctx, id)
	}
	o := p.oracle(t)
	o.quiet(ctx)
	o.nothingDead(ctx)
	for id, email := range map[string]string{first.ID: early, second.ID: late} {
		o.completedOnce(ctx, id, email, 1)
		if n := o.stated(ctx, "token", id)["LinkRedeemed"]; n != 1 {
			t.Errorf("%s was opened %d times", fmt.Sprint(email), n)
		}
	}
	p.stop()
}
