package redistest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/redisserver"
)

const (
	slots   = 16384
	patient = 20 * time.Second
)

// Cluster starts a Redis Cluster of three masters without replicas, each with a third of the slots, that ends with the test. It
// returns the address as a client takes it: all nodes, separated by commas.
func Cluster(t testing.TB) string {
	t.Helper()
	const nodes = 3
	var addrs []string
	var all []*redis.Client
	for range nodes {
		// The nodes speak on a second port. The system chooses it, as it may for the first one.
		bus := StartReal(t)
		_, port := split(t, bus.Addr())
		bus.Stop()
		s := run(t, redisserver.Options{Dir: t.TempDir(), Args: []string{
			"--save", "", "--appendonly", "no", "--cluster-enabled", "yes", "--cluster-port", port, "--cluster-node-timeout", "2000",
		}})
		addrs, all = append(addrs, s.Addr()), append(all, Client(t, s.Addr()))
	}
	for i, rdb := range all {
		if err := rdb.ClusterAddSlotsRange(t.Context(), i*slots/nodes, (i+1)*slots/nodes-1).Err(); err != nil {
			t.Fatal(err)
		}
		for j, other := range addrs {
			if i == j {
				continue
			}
			host, port := split(t, other)
			bus := all[j].ConfigGet(t.Context(), "cluster-port").Val()["cluster-port"]
			if err := rdb.Do(t.Context(), "CLUSTER", "MEET", host, port, bus).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, rdb := range all {
		await(t, "the Cluster is whole", func() bool {
			info := rdb.ClusterInfo(t.Context()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", nodes)) &&
				strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d", slots))
		})
	}
	return strings.Join(addrs, ",")
}

func split(t testing.TB, addr string) (host, port string) {
	t.Helper()
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return a.Addr().String(), strconv.Itoa(int(a.Port()))
}

// await polls until done.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	elapsed := clock.Stopwatch()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if elapsed() > patient {
			t.Fatalf("not in %v: %s", patient, what)
		}
		<-tick.C
	}
}
