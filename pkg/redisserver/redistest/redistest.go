// Package redistest gives tests a Redis of their own: the real server, the embedded stand-in, or each in turn.
package redistest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"countersign.dev/pkg/redisserver"
)

// Real returns a client of a fresh redis-server that ends with the test. Without redis-server the test is skipped, or fails
// where COUNTERSIGN_REQUIRE_TOOLS is set.
func Real(t testing.TB) *redis.Client {
	t.Helper()
	return Client(t, StartReal(t).Addr())
}

// StartReal is Real for tests that need the server itself.
func StartReal(t testing.TB) *redisserver.Server {
	t.Helper()
	return run(t, redisserver.Options{})
}

// run starts the real server.
func run(t testing.TB, o redisserver.Options) *redisserver.Server {
	t.Helper()
	if _, err := exec.LookPath(redisserver.Binary); err != nil {
		if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
			t.Fatal(err)
		}
		t.Skip("redis-server is not installed")
	}
	o.Binary = redisserver.Binary
	return start(t, o)
}

// Embedded returns a client of a fresh embedded stand-in that ends with the test.
func Embedded(t testing.TB) *redis.Client {
	t.Helper()
	return Client(t, start(t, redisserver.Options{Embedded: true}).Addr())
}

// Each runs test against the real server and against the stand-in.
func Each(t *testing.T, test func(t *testing.T, rdb *redis.Client)) {
	t.Helper()
	t.Run("redis-server", func(t *testing.T) { test(t, Real(t)) })
	t.Run("miniredis", func(t *testing.T) { test(t, Embedded(t)) })
}

// Client returns a client for addr that is closed with the test.
func Client(t testing.TB, addr string) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{
		Addr: addr, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func start(t testing.TB, o redisserver.Options) *redisserver.Server {
	t.Helper()
	s, err := redisserver.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}
