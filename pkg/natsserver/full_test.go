package natsserver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/natsserver"
)

// small mounts a file system of so many MiB; where the kernel does not let us, the test is skipped with what it refused.
func small(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm,mode=0700", mib), "tmpfs", dir).CombinedOutput(); err != nil { //nolint:gosec // a folder of the test
		t.Skipf("no small disk: mount: %v %s (root is needed)", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() }) //nolint:gosec // a folder of the test
	return dir
}

// TestFullDisk: on a disk that is full the server refuses each write to whoever makes it, and loses nothing it acknowledged. It takes
// writes again by itself once there is space, and after a restart has exactly what it acknowledged.
func TestFullDisk(t *testing.T) {
	disk := small(t, 64)
	o := natsserver.Options{Listen: "127.0.0.1:0", Dir: filepath.Join(disk, "nats"), Key: "a key of this test"}
	s, err := natsserver.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Stop() }()
	js := client(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "FACTS", Subjects: []string{"fact.>"}, Discard: jetstream.DiscardNew, DenyDelete: true, DenyPurge: true, MaxMsgsPerSubject: 10_000, AllowDirect: true,
	}); err != nil {
		t.Fatal(err)
	}
	acked, refused := map[uint64]string{}, map[string]bool{}
	publish := func(text string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		ack, err := js.Publish(ctx, "fact.a", append([]byte(text), make([]byte, 8<<10)...), jetstream.WithRetryAttempts(0))
		if err == nil {
			acked[ack.Sequence] = text
			return nil
		}
		refused[text] = true
		return err
	}
	for round := range 2 {
		ballast := filepath.Join(disk, "ballast")
		fill(t, ballast)
		var full error
		for i := 0; full == nil; i++ {
			full = publish(fmt.Sprint("round ", round, " message ", i))
		}
		t.Logf("round %d: %d acknowledged, then %v", round, len(acked), full)
		if err := s.Health(); !errors.Is(err, natsserver.ErrDisk) || !strings.Contains(err.Error(), "0 MiB are free") {
			t.Errorf("its health is %v", err)
		}
		if publish(fmt.Sprint("full ", round)) == nil {
			t.Error("a write was taken after one had failed")
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		deadline := time.After(20 * time.Second)
		for i := 0; publish(fmt.Sprint("space ", round, " ", i)) != nil; i++ {
			select {
			case <-deadline:
				t.Fatal("with space again it goes on refusing")
			case <-time.After(100 * time.Millisecond):
			}
		}
		if err := s.Health(); err != nil {
			t.Errorf("with space again its health is %v", err)
		}
		compare(t, js, acked, len(refused))
	}
	s.Stop()
	if s, err = natsserver.Start(o); err != nil {
		t.Fatal(err)
	}
	compare(t, client(t, s), acked, len(refused))
}

func client(t *testing.T, s *natsserver.Server) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// fill writes until the disk takes no more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 256<<10)
	for size := len(chunk); size > 0; {
		if _, err := f.Write(chunk[:size]); err != nil {
			size /= 2
		}
	}
}

// compare wants the stream to have what was acknowledged, and no more than was tried: a write whose answer did not come may be there.
func compare(t *testing.T, js jetstream.JetStream, acked map[uint64]string, refused int) {
	t.Helper()
	st, err := js.Stream(t.Context(), "FACTS")
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := int(info.State.Msgs); n < len(acked) || n > len(acked)+refused || info.State.NumDeleted != 0 {
		t.Errorf("%d messages are there and %d holes, %d were acknowledged", info.State.Msgs, info.State.NumDeleted, len(acked))
	}
	for seq, text := range acked {
		m, err := st.GetMsg(t.Context(), seq)
		if err != nil || string(m.Data[:len(text)]) != text {
			t.Errorf("message %d (%s): %v", seq, text, err)
		}
	}
}
