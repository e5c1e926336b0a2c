package natsserver_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/natsserver/powertest"
)

// TestWhatIsAcknowledgedSurvivesAPowerCut cuts the power right after the last acknowledgement, with the setting that everybody gets who
// asks for nothing else.
func TestWhatIsAcknowledgedSurvivesAPowerCut(t *testing.T) {
	disk := powertest.NewDisk(t)
	options := natsserver.Options{Listen: "127.0.0.1:0", Dir: filepath.Join(disk.Mount, "jetstream")}
	start := func() (*natsserver.Server, jetstream.JetStream, *nats.Conn) {
		s, err := natsserver.Start(options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		nc, err := nats.Connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		return s, js, nc
	}
	server, js, nc := start()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KEPT", Subjects: []string{"kept.>"}, Storage: jetstream.FileStorage}); err != nil {
		t.Fatal(err)
	}
	disk.Sync() // the stream is there, whatever becomes of its messages
	const messages = 20
	for i := range messages {
		if _, err := js.Publish(t.Context(), fmt.Sprintf("kept.%d", i), []byte("acknowledged")); err != nil {
			t.Fatal(err)
		}
	}
	disk.Cut()
	nc.Close()
	server.Stop()
	disk.Restore()
	_, js, _ = start()
	stream, err := js.Stream(t.Context(), "KEPT")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State.Msgs; got != messages {
		t.Errorf("%d messages were acknowledged, %d are there", messages, got)
	}
}
