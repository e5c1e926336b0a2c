package eventlog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
)

// TestADiskThatIsTooSmall: whoever starts on a disk without room is told how much is needed, of what, and what to do.
func TestADiskThatIsTooSmall(t *testing.T) {
	t.Parallel()
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect(ns.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	large := eventlog.Topology{Streams: []jetstream.StreamConfig{{Name: "LARGE", Subjects: []string{"large.*"}, Storage: jetstream.FileStorage, MaxBytes: 16 << 20}}}
	_, err = eventlog.Provision(t.Context(), js, large, 1, func(string) map[string]string { return nil })
	if err == nil || !strings.Contains(err.Error(), "LARGE needs 16 MiB") || !strings.Contains(err.Error(), "make room") {
		t.Errorf("told %v", err)
	}
}
