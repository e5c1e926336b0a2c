package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/natsaccess"
)

const (
	// redeliveredMany is from how many messages given again on it is worth a look: some are normal after a restart.
	redeliveredMany = 10
	connectTimeout  = 3 * time.Second
)

// shared are the streams that must be empty, with what a message in them means and what to do.
var shared = map[string][2]string{
	"DEAD": {
		"%d messages failed for good",
		"read them with `nats stream view DEAD`: each has the error in its headers; mend the cause, then publish them again and purge the stream",
	},
	"ADVISORIES": {
		"the server gave up on %d messages, or found them gone",
		"read them with `nats stream view ADVISORIES`: they name stream, sequence and reason (\"Unacknowledged message was deleted\" in a work queue follows a kill and is harmless); then purge the stream",
	},
}

// examineNATS looks at the record: the server, its streams and who reads them.
func examineNATS(ctx context.Context, p Patient) []Finding {
	if p.NATS == "" {
		return nil
	}
	nc, err := natsaccess.Connect(p.NATS, p.Keys, nats.Timeout(connectTimeout), nats.NoReconnect(), nats.Name("countersign doctor"))
	if err != nil {
		return []Finding{fail("nats", startIt+" with --nats", "cannot connect to %s: %v", p.NATS, err)}
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return []Finding{fail("nats", "see the server's configuration", "%v", err)}
	}
	if _, err := js.AccountInfo(ctx); err != nil {
		return []Finding{fail("nats", "switch JetStream on in the server's configuration, with `sync_interval: always`", "%s has no JetStream: %v", p.NATS, err)}
	}
	found := []Finding{ok("nats", "JetStream answers at %s", nc.ConnectedUrlRedacted())}
	streams := map[string]*jetstream.StreamInfo{}
	list := js.ListStreams(ctx)
	for info := range list.Info() {
		streams[info.Config.Name] = info
	}
	if err := list.Err(); err != nil {
		return append(found, fail("streams", "see the server's logs", "cannot list the streams: %v", err))
	}
	found = append(found, examineStreams(p.Expected, streams)...)
	found = append(found, examineShared(streams)...)
	return append(found, examineConsumers(ctx, js, p.Expected, streams)...)
}

// examineStreams looks whether all streams are there, each the one that was made for this installation, on a server that syncs.
func examineStreams(expected eventlog.Topology, streams map[string]*jetstream.StreamInfo) []Finding {
	names := []string{"INTAKE", "OUTCOMES"}
	for _, c := range eventlog.Merge(expected, eventlog.Topology{Streams: eventlog.SharedStreams()}).Streams {
		names = append(names, c.Name)
	}
	for name := range streams {
		if strings.HasPrefix(name, "FACTS_") || strings.HasPrefix(name, "TIMERS_") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var missing, unborn, lazy, holes []string
	for _, name := range names {
		info, there := streams[name]
		switch {
		case !there:
			missing = append(missing, name)
			continue
		case info.Config.Metadata[eventlog.BirthKey] == "":
			unborn = append(unborn, name)
		case info.Config.Metadata[eventlog.SyncKey] != eventlog.SyncAlways:
			lazy = append(lazy, name)
		}
		if info.Config.DenyDelete && info.State.NumDeleted > 0 {
			holes = append(holes, name)
		}
	}
	var found []Finding
	if len(missing) > 0 {
		found = append(found, fail("streams", "on a new server run `countersign init`; on one that had them the record is lost: restore it from a backup", "missing: %s", strings.Join(missing, ", ")))
	}
	if len(unborn) > 0 {
		found = append(found, fail("streams", "they were not made by `countersign init`: find out who made them, and restore the record from a backup",
			"without a birth certificate: %s", strings.Join(unborn, ", ")))
	}
	if len(holes) > 0 {
		found = append(found, fail("streams", "blocks of the record are lost: restore it from a backup", "holes where nothing may be deleted: %s", strings.Join(holes, ", ")))
	}
	if len(lazy) > 0 {
		found = append(found, warn("sync", "set `sync_interval: always` in the server's jetstream block, then run `countersign init --monitor http://HOST:8222`",
			"a power cut may lose what was acknowledged: the server syncs after it acknowledges (%s)", some(lazy)))
	}
	if len(found) == 0 {
		found = append(found, ok("streams", "%d there, each with its birth certificate, on a server that syncs before it acknowledges", len(names)))
	}
	return found
}

// some names the first of many.
func some(names []string) string {
	const few = 3
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// examineShared looks whether anything was given up.
func examineShared(streams map[string]*jetstream.StreamInfo) []Finding {
	var found []Finding
	for _, name := range []string{"DEAD", "ADVISORIES"} {
		info, there := streams[name]
		if !there {
			continue // told as missing
		}
		check := strings.ToLower(name)
		if n := info.State.Msgs; n > 0 {
			tell := fail
			if name == "ADVISORIES" {
				// Not always a loss: after a kill the server may also name what was acknowledged just before.
				tell = warn
			}
			found = append(found, tell(check, shared[name][1], shared[name][0], n))
			continue
		}
		found = append(found, ok(check, "empty"))
	}
	return found
}

// examineConsumers looks who is behind, who is given messages again and again, and whom nobody serves.
func examineConsumers(ctx context.Context, js jetstream.JetStream, expected eventlog.Topology, streams map[string]*jetstream.StreamInfo) []Finding {
	var found []Finding
	seen := map[string]bool{}
	count, pending := 0, uint64(0)
	for _, name := range slices.Sorted(maps.Keys(streams)) {
		st, err := js.Stream(ctx, name)
		if err != nil {
			return append(found, fail("consumers", "see the server's logs", "cannot look at stream %s: %v", name, err))
		}
		list := st.ListConsumers(ctx)
		for c := range list.Info() {
			if c.Config.Durable == "" {
				continue // somebody's watch
			}
			count++
			pending += c.NumPending
			seen[name+"/"+c.Name] = true
			found = append(found, examineConsumer(name+"/"+c.Name, c)...)
		}
		if err := list.Err(); err != nil {
			return append(found, fail("consumers", "see the server's logs", "cannot list the consumers of %s: %v", name, err))
		}
	}
	var missing []string
	for _, c := range expected.Consumers {
		if !seen[c.Stream+"/"+c.Durable] {
			missing = append(missing, c.Stream+"/"+c.Durable)
		}
	}
	if len(missing) > 0 {
		found = append(found, fail("consumers", "run `countersign init`: it makes what is missing", "missing: %s", strings.Join(missing, ", ")))
	}
	if len(found) == 0 {
		found = append(found, ok("consumers", "%d, all served; %d messages wait", count, pending))
	}
	return found
}

func examineConsumer(name string, c *jetstream.ConsumerInfo) []Finding {
	switch {
	case c.NumWaiting == 0 && c.NumAckPending == 0 && !c.PushBound:
		level := warn
		if c.NumPending > 0 {
			level = fail
		}
		return []Finding{level("consumers", "start the service that reads it, or see its logs", "%s: nobody reads, %d messages wait", name, c.NumPending)}
	case c.NumRedelivered >= redeliveredMany:
		return []Finding{warn("consumers", "its service's logs say what goes wrong; what fails for good goes to DEAD",
			"%s: %d messages were given again, %d wait", name, c.NumRedelivered, c.NumPending)}
	}
	return nil
}
