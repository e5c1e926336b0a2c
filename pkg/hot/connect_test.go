package hot_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/secret"
)

func TestConnectUnderstands(t *testing.T) {
	connect := func(address string) redis.UniversalClient {
		t.Helper()
		rdb, err := hot.Connect(address, secret.New("pw"))
		if err != nil {
			t.Fatalf("%q: %v", address, err)
		}
		t.Cleanup(func() { _ = rdb.Close() })
		return rdb
	}
	one, ok := connect("rediss://app@r.example:6380/2").(*redis.Client)
	if !ok {
		t.Fatalf("one host gives a %T", one)
	}
	if o := one.Options(); o.Addr != "r.example:6380" || o.Username != "app" || o.Password != "pw" || o.DB != 2 || o.TLSConfig == nil || !o.ContextTimeoutEnabled {
		t.Errorf("options are %+v", o)
	}
	if o := connect("127.0.0.1:6379").(*redis.Client).Options(); o.Addr != "127.0.0.1:6379" || o.TLSConfig != nil {
		t.Errorf("options are %+v", o)
	}
	many, ok := connect("a:1, b:2").(*redis.ClusterClient)
	if !ok || strings.Join(many.Options().Addrs, " ") != "a:1 b:2" {
		t.Errorf("several hosts give %T", many)
	}
	if c, ok := connect("redis://a:1,b:2?sentinel=main").(*redis.Client); !ok || c.Options().Addr != "FailoverClient" {
		t.Errorf("sentinels give %T", c)
	}
}

func TestConnectRefuses(t *testing.T) {
	for _, address := range []string{
		"", "host", "host:", ":6379", "host:0", "host:x", "host:70000", "a:1,,b:2", "http://h:1", "redis://h:1/x", "redis://h:1/-1",
		"redis://h:1?timeout=1s", "redis://h:1?sentinel=a&sentinel=b", "redis://", "redis://user:hunter2@h:1", "redis://u:hunter2@h:x y",
	} {
		rdb, err := hot.Connect(address, secret.Secret{})
		if !errors.Is(err, hot.ErrAddress) || rdb != nil {
			t.Errorf("Connect(%q): %v", address, err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Connect(%q) repeats the password: %v", address, err)
		}
	}
}

func TestConnectLogsIn(t *testing.T) {
	admin := redistest.Real(t)
	if err := admin.ConfigSet(t.Context(), "requirepass", "pw").Err(); err != nil {
		t.Fatal(err)
	}
	for password, ok := range map[string]bool{"pw": true, "wrong": false, "": false} {
		rdb, err := hot.Connect("redis://"+admin.Options().Addr, secret.New(password))
		if err != nil {
			t.Fatal(err)
		}
		if err := rdb.Ping(t.Context()).Err(); (err == nil) != ok {
			t.Errorf("with password %q: %v", password, err)
		}
		_ = rdb.Close()
	}
}
