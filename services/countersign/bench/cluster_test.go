package bench

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/natsserver"
)

// BenchmarkReplicated is what ends on the disk where three servers keep each message and two of them sync before it is acknowledged;
// with PEERS=1 beside PostgreSQL, which changes a row on the one condition that the row is as it was read: as one server, and as three of
// which two sync before a change is acknowledged.
func BenchmarkReplicated(b *testing.B) {
	w := newWorld(b, 3)
	subjects, rows, _ := w.durable()
	if os.Getenv("COUNTERSIGN_BENCH_PEERS") != "" {
		redeem := len(rows) - 1
		for _, one := range []struct {
			name     string
			standbys int
		}{{"PostgreSQL, one server", 0}, {"PostgreSQL, three servers", 2}} {
			peer := newSubject(one.name, startPostgres(b, len(w.sample.Data), one.standbys).update)
			peer.timed = true
			rows[redeem].ceilings = append(rows[redeem].ceilings, peer)
			subjects, rows = append(subjects, peer), append(rows, row{peer, nil})
		}
	}
	watch, rounds := clock.Stopwatch(), 0
	for b.Loop() {
		if watch() > budget {
			continue // a busy machine: what was measured so far counts
		}
		rounds++
		for _, at := range callers {
			for range sides {
				for _, s := range subjects {
					s.measure(b, at)
				}
			}
		}
	}
	fmt.Fprintf(os.Stdout, "\n\nThree servers, three replicas, on one disk:\n\n%s\n%s\n%s\n%d rounds, medians.\n\n", ratios(rows), rates(rows), times(rows), rounds)
	report(b, rows)
}

// startCluster starts NATS servers that know each other, and returns where they are when they have agreed on a leader.
func startCluster(b *testing.B, servers int, dir, key string) string {
	b.Helper()
	var routes []string
	for range servers {
		routes = append(routes, "nats://"+freeAddress(b))
	}
	var urls []string
	var all []*server.Server
	for n, route := range routes {
		host, port, err := net.SplitHostPort(strings.TrimPrefix(route, "nats://"))
		check(b, err)
		options := &server.Options{
			ServerName: fmt.Sprintf("bench-%d", n), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, MaxPayload: natsserver.MaxPayload,
			JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprint(n)), SyncAlways: true, JetStreamCipher: server.AES, JetStreamKey: key,
			Cluster: server.ClusterOpts{Name: "bench", Host: host}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		}
		_, err = fmt.Sscan(port, &options.Cluster.Port)
		check(b, err)
		ns, err := server.NewServer(options)
		check(b, err)
		ns.Start()
		b.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
		all = append(all, ns)
	}
	for _, ns := range all {
		if !ns.ReadyForConnections(30 * time.Second) {
			b.Fatal("a server of the cluster is not ready within 30 s")
		}
		urls = append(urls, ns.ClientURL())
	}
	await(b, "a leader of the servers", func() bool {
		for _, ns := range all {
			if ns.JetStreamIsLeader() {
				return ns.JetStreamIsCurrent()
			}
		}
		return false
	})
	return strings.Join(urls, ",")
}

// await waits half a minute for something to come.
func await(b *testing.B, what string, there func() bool) {
	b.Helper()
	for watch := clock.Stopwatch(); !there(); {
		if watch() > 30*time.Second {
			b.Fatalf("%s did not come within 30 s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// freeAddress returns an address of this machine on which nobody listens.
func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(b, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
