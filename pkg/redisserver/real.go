package redisserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// What can come of a port that another process has taken.
var (
	errExited = errors.New("redis-server ended at once")
	errTaken  = errors.New("the port is already in use")
)

func startReal(ctx context.Context, o Options, binary string, addr netip.AddrPort) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var errs []error
	for range portTries {
		try := addr
		if addr.Port() == 0 {
			port, err := freePort(ctx, addr.Addr())
			if err != nil {
				return nil, err
			}
			try = netip.AddrPortFrom(addr.Addr(), port)
		}
		s, err := startOn(ctx, o, binary, try)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
		if addr.Port() != 0 || (!errors.Is(err, errExited) && !errors.Is(err, errTaken)) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// freePort lets the system choose. The port is free again when this returns: redis-server cannot take over a socket.
func freePort(ctx context.Context, ip netip.Addr) (uint16, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(ip, 0).String())
	if err != nil {
		return 0, fmt.Errorf("redisserver: find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	bound, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("redisserver: find a free port: %w", err)
	}
	return bound.Port(), nil
}

func startOn(ctx context.Context, o Options, binary string, addr netip.AddrPort) (*Server, error) {
	dir, forget := o.Dir, func() {}
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "redis-*"); err != nil {
			return nil, fmt.Errorf("redisserver: %w", err)
		}
		forget = func() { _ = os.RemoveAll(dir) }
	}
	args := o.Args
	if args == nil {
		args = []string{"--save", "", "--appendonly", "no"}
	}
	out := &tail{}
	cmd := exec.Command(binary, append(slices.Clip(args), //nolint:noctx // its life is Stop's, not the context's, which bounds the start
		"--port", strconv.Itoa(int(addr.Port())), "--bind", addr.Addr().String(), "--dir", dir,
		"--daemonize", "no", "--protected-mode", "yes", "--loglevel", "warning")...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttr()

	s := &Server{addr: addr.String(), kind: Real, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(s.done)
		defer forget()
		// The system kills the child when the *thread* that made it ends, so this thread is held for as long as it lives. Then it is
		// given back: it would end with this goroutine, and take every other child along that happened to be started from it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			err = cmd.Wait()
			o.Log.DebugContext(context.WithoutCancel(ctx), "redis-server ended", "addr", s.addr, "state", fmt.Sprint(err))
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("redisserver: start %s: %w", binary, err)
	}
	s.pid = cmd.Process.Pid
	s.stop = func() { s.end(cmd.Process) }
	var err error
	if s.version, err = s.await(ctx); err != nil {
		s.Stop()
		return nil, fmt.Errorf("redisserver: start %s on %s: %w: %s", binary, addr, err, out)
	}
	forget() // it stands in it and keeps nothing there; so a kill leaves nothing behind
	return s, nil
}

// end asks the child to go, and makes it where it does not.
func (s *Server) end(child *os.Process) {
	_ = child.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(stopTimeout):
		_ = child.Kill()
	}
}

// await returns the version once the child answers: the child and no other server that has the port.
func (s *Server) await(ctx context.Context) (string, error) {
	rdb := redis.NewClient(&redis.Options{
		Addr: s.addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	defer func() { _ = rdb.Close() }()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if listening(ctx, s.addr) { // first, since the client prints each refusal
			info, err := rdb.InfoMap(ctx, "server").Result()
			if err != nil {
				return "", fmt.Errorf("%w by something that is no open Redis: %w", errTaken, err)
			}
			if got := info["Server"]["process_id"]; got != strconv.Itoa(s.pid) {
				return "", fmt.Errorf("%w by process %s", errTaken, got)
			}
			return info["Server"]["redis_version"], nil
		}
		select {
		case <-s.done:
			return "", errExited
		case <-ctx.Done():
			return "", fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func listening(ctx context.Context, addr string) bool {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// tail keeps the end of what the child printed.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = bytes.Clone(t.buf[over:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.buf)), " ")
}
