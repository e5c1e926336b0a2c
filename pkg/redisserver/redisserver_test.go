package redisserver_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/redisserver"
	"countersign.dev/pkg/redisserver/redistest"
)

const patience = 10 * time.Second

// eventually polls until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not in %v: %s", patience, what)
		}
	}
}

func listening(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func TestBothKindsServeExpireAndStop(t *testing.T) {
	redistest.Each(t, func(t *testing.T, rdb *redis.Client) {
		if err := rdb.Set(t.Context(), "k", "v", 50*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the key expires by itself", func() bool {
			return errors.Is(rdb.Get(t.Context(), "k").Err(), redis.Nil)
		})
		skew, err := clock.Skew(t.Context(), rdb)
		if err != nil || skew.Abs() > 500*time.Millisecond {
			t.Errorf("the same machine's clock is off by %v, %v", skew, err)
		}
	})
}

func TestRealIsGoneAfterStop(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := redistest.StartReal(t)
	if s.Kind() != redisserver.Real || s.Version() == "" || s.PID() == 0 || !listening(s.Addr()) {
		t.Errorf("kind %q, version %q, pid %d", s.Kind(), s.Version(), s.PID())
	}
	s.Stop()
	s.Stop()
	if listening(s.Addr()) {
		t.Error("it still listens")
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDoneTellsOfAnAccident(t *testing.T) {
	s := redistest.StartReal(t)
	p, err := os.FindProcess(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Kill()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("Done was not closed")
	}
	s.Stop()
}

func TestEmbeddedSaysWhatItIs(t *testing.T) {
	s, err := redisserver.Start(t.Context(), redisserver.Options{Embedded: true, Addr: "localhost:0"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Kind() != redisserver.Embedded || !strings.Contains(string(s.Kind()), "stand-in") || s.PID() != 0 {
		t.Errorf("kind %q, pid %d", s.Kind(), s.PID())
	}
	s.Stop()
	s.Stop()
	if listening(s.Addr()) {
		t.Error("it still listens")
	}
}

func TestWithoutTheProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	s, err := redisserver.Start(t.Context(), redisserver.Options{})
	if err != nil || s.Kind() != redisserver.Embedded {
		t.Fatalf("%v, %v", s, err)
	}
	s.Stop()
	if _, err := redisserver.Start(t.Context(), redisserver.Options{Binary: "redis-server"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("asked for by name: %v", err)
	}
}

func TestOnlyLoopback(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":6379", "192.0.2.1:6379", "example.com:1", "127.0.0.1", "127.0.0.1:x", "[::]:0", "127.0.0.1:70000"} {
		if s, err := redisserver.Start(t.Context(), redisserver.Options{Addr: addr}); !errors.Is(err, redisserver.ErrNotLoopback) {
			t.Errorf("Start on %q: %v, %v", addr, s, err)
		}
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	first := redistest.StartReal(t)
	for _, o := range []redisserver.Options{{Addr: first.Addr()}, {Addr: first.Addr(), Embedded: true}} {
		s, err := redisserver.Start(t.Context(), o)
		if err == nil {
			s.Stop()
			t.Fatalf("%+v: started on a taken port", o)
		}
		if !strings.Contains(err.Error(), first.Addr()) || !strings.Contains(strings.ToLower(err.Error()), "already in use") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// TestDiesWithItsParent kills a process that started a server, as kill -9 or the OOM killer would.
func TestDiesWithItsParent(t *testing.T) {
	if os.Getenv("REDISSERVER_PARENT") != "" {
		s, err := redisserver.Start(t.Context(), redisserver.Options{Binary: redisserver.Binary})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("addr " + s.Addr() + "\n")
		<-s.Done()
		return
	}
	redistest.StartReal(t).Stop() // skips where there is no redis-server
	parent := exec.Command(os.Args[0], "-test.run=^TestDiesWithItsParent$")
	parent.Env = append(os.Environ(), "REDISSERVER_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	addr := ""
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		addr, _ = strings.CutPrefix(lines.Text(), "addr ")
	}
	if addr == "" || !listening(addr) {
		t.Errorf("the parent has no server at %q", addr)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	eventually(t, "the orphan is gone", func() bool { return !listening(addr) })
}
