package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/redisserver"
)

const watched = "countersign"

// Watched is a master with one replica and a Sentinel that promotes it when the master is gone.
type Watched struct {
	t          testing.TB
	master     *redisserver.Server
	replica    *redisserver.Server
	sentinel   *redisserver.Server
	toMaster   *redis.Client
	toReplica  *redis.Client
	toSentinel *redis.SentinelClient
}

// Sentinel starts a master, a replica and a Sentinel that end with the test.
func Sentinel(t testing.TB) *Watched {
	t.Helper()
	w := &Watched{t: t, master: StartReal(t)}
	host, port := split(t, w.master.Addr())
	w.replica = run(t, redisserver.Options{Dir: t.TempDir(), Args: []string{"--save", "", "--replicaof", host + " " + port, "--repl-diskless-sync-delay", "0"}})
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %[1]s %s %s 1\nsentinel down-after-milliseconds %[1]s 1000\nsentinel failover-timeout %[1]s 5000\n", watched, host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.toMaster, w.toReplica = Client(t, w.master.Addr()), Client(t, w.replica.Addr())
	await(t, "the replica is in step", func() bool {
		return w.toReplica.InfoMap(t.Context(), "replication").Val()["Replication"]["master_link_status"] == "up"
	})
	w.sentinel = run(t, redisserver.Options{Dir: filepath.Dir(config), Args: []string{config, "--sentinel"}})
	w.toSentinel = redis.NewSentinelClient(&redis.Options{Addr: w.sentinel.Addr(), DisableIdentity: true})
	t.Cleanup(func() { _ = w.toSentinel.Close() })
	await(t, "the Sentinel knows the replica", func() bool {
		known, err := w.toSentinel.Replicas(t.Context(), watched).Result()
		return err == nil && len(known) == 1 && known[0]["flags"] == "slave"
	})
	return w
}

// Addr is the address as pkg/hot takes it.
func (w *Watched) Addr() string { return "redis://" + w.sentinel.Addr() + "/0?sentinel=" + watched }

// Sever lets the replica hear nothing of the master any more; the Sentinel takes both for well.
func (w *Watched) Sever() {
	w.t.Helper()
	if err := w.toMaster.Do(w.t.Context(), "ACL", "SETUSER", "default", "-psync", "-sync", "-replconf").Err(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.toMaster.ClientKillByFilter(w.t.Context(), "TYPE", "replica").Err(); err != nil {
		w.t.Fatal(err)
	}
	await(w.t, "the replica is cut off", func() bool {
		return w.toReplica.InfoMap(w.t.Context(), "replication").Val()["Replication"]["master_link_status"] == "down"
	})
}

// Promote kills the master and waits until the replica is it.
func (w *Watched) Promote() {
	w.t.Helper()
	if err := syscall.Kill(w.master.PID(), syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	<-w.master.Done()
	await(w.t, "the replica is promoted", func() bool {
		at, err := w.toSentinel.GetMasterAddrByName(w.t.Context(), watched).Result()
		return err == nil && len(at) == 2 && at[0]+":"+at[1] == w.replica.Addr() &&
			w.toReplica.InfoMap(w.t.Context(), "replication").Val()["Replication"]["role"] == "master"
	})
}
