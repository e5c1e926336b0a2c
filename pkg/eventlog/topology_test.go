package eventlog_test

import (
	"os"
	"path/filepath"
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
	js := jetStream(t, &server.Options{StoreDir: t.TempDir(), JetStreamMaxStore: 8 << 20})
	large := eventlog.Topology{Streams: []jetstream.StreamConfig{{Name: "LARGE", Subjects: []string{"large.*"}, Storage: jetstream.FileStorage, MaxBytes: 16 << 20}}}
	_, err := eventlog.Provision(t.Context(), js, large, 1, func(string) map[string]string { return nil })
	if err == nil || !strings.Contains(err.Error(), "LARGE needs 16 MiB") || !strings.Contains(err.Error(), "make room") {
		t.Errorf("told %v", err)
	}
}

// TestAConsumerWhoseFilesAreDamaged has something else lie where the server keeps it.
func TestAConsumerWhoseFilesAreDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	js := jetStream(t, &server.Options{StoreDir: dir})
	topology := eventlog.Topology{Streams: []jetstream.StreamConfig{{Name: "S", Subjects: []string{"s.*"}, Storage: jetstream.FileStorage}}}
	stamp := func(string) map[string]string { return nil }
	if _, err := eventlog.Provision(t.Context(), js, topology, 1, stamp); err != nil {
		t.Fatal(err)
	}
	consumers := filepath.Join(dir, "jetstream", "$G", "streams", "S", "obs")
	if err := os.MkdirAll(consumers, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(consumers, "reader"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	topology.Consumers = []eventlog.ConsumerSpec{{Stream: "S", Durable: "reader"}}
	_, err := eventlog.Provision(t.Context(), js, topology, 1, stamp)
	if err == nil || !strings.Contains(err.Error(), "consumer reader of stream S are damaged") || !strings.Contains(err.Error(), "restore the record") {
		t.Errorf("told %v", err)
	}
}

// jetStream starts a server and returns its JetStream.
func jetStream(t *testing.T, o *server.Options) jetstream.JetStream {
	t.Helper()
	o.Host, o.Port, o.NoSigs, o.NoLog, o.JetStream = "127.0.0.1", server.RANDOM_PORT, true, true, true
	ns, err := server.NewServer(o)
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
	return js
}
