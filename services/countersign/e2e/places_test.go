package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/telemetry/telemetrytest"
)

// inRedis searches every key with its value.
func inRedis(ctx context.Context, t *testing.T, in *instance, forms []form) []found {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: in.Addresses.Redis})
	defer rdb.Close() //nolint:errcheck // read only
	var leaks []found
	n := 0
	keys := rdb.Scan(ctx, 0, "*", 100).Iterator()
	for ; keys.Next(ctx); n++ {
		key := keys.Val()
		kind, err := rdb.Type(ctx, key).Result()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		switch kind {
		case "string":
			value, err = rdb.Get(ctx, key).Result()
		case "hash":
			value, err = rdb.HGetAll(ctx, key).Result()
		case "zset":
			value, err = rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
		case "set":
			value, err = rdb.SMembers(ctx, key).Result()
		case "list":
			value, err = rdb.LRange(ctx, key, 0, -1).Result()
		case "none": // expired meanwhile
		default:
			t.Errorf("nobody searches Redis's %s", kind)
		}
		if err != nil && !strings.Contains(err.Error(), "nil") {
			t.Fatal(err)
		}
		leaks = append(leaks, search(forms, "Redis: "+key, fmt.Appendf(nil, "%s %v", key, value))...)
	}
	if err := keys.Err(); err != nil || n < 5 {
		t.Fatalf("%d keys in Redis, %v", n, err)
	}
	return leaks
}

func inMetrics(ctx context.Context, t *testing.T, in *instance, forms []form) []found {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, in.Addresses.Metrics, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "countersign_") {
		t.Fatalf("the metrics are %.200s, %v", body, err)
	}
	return search(forms, "the metrics", body)
}

func inSpans(t *testing.T, sink *telemetrytest.Sink, hidden *needles, forms []form) []found {
	t.Helper()
	var leaks []found
	spans := sink.Spans()
	if len(spans) < 100 {
		t.Errorf("only %d spans came", len(spans))
	}
	for _, s := range spans {
		raw, err := proto.Marshal(s.Raw)
		if err != nil {
			t.Fatal(err)
		}
		leaks = append(leaks, search(forms, "the span "+s.Name, raw)...)
	}
	for value := range hidden.values {
		if len(value) > 8 {
			sink.AssertNone(t, value) // in resources and scopes as well
		}
	}
	return leaks
}

// inStreams opens the store of the stopped process, leaves a request unread in it, and searches every message and header of every
// stream but that one.
func inStreams(ctx context.Context, t *testing.T, in *instance, forms []form, unread []byte) []found {
	t.Helper()
	ring, err := keys.Open(filepath.Join(in.data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	ns, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: filepath.Join(in.data, "nats"), Key: hex.EncodeToString(ring.Derive("cs.nats.v1", 32))})
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Stop()
	in.Addresses.NATS = ns.URL()
	o := in.oracle(t)
	if _, err := o.js.Publish(ctx, "intake.demo", unread); err != nil {
		t.Fatal(err)
	}
	var leaks []found
	messages := map[string]int{}
	for name := range o.js.StreamNames(ctx).Name() {
		for _, m := range o.all(ctx, name, ">") {
			messages[name]++
			got := search(forms, fmt.Sprintf("%s:%d (%s)", name, m.Sequence, m.Subject), fmt.Appendf(nil, "%s %v %s", m.Subject, m.Header, m.Data))
			if name == "INTAKE" {
				if messages[name] > 1 || len(got) == 0 {
					t.Errorf("the intake should hold one unread message, with all its values: %d, %v", messages[name], got)
				}
				continue
			}
			leaks = append(leaks, got...)
		}
	}
	for _, name := range []string{"FACTS_TOKEN", "FACTS_DELIVERY", "FACTS_IDENTITY", "FACTS_CEREMONY", "OUTCOMES", "LEDGER", "DEAD", "INTAKE", "OBJ_DOCUMENTS"} {
		if messages[name] == 0 {
			t.Errorf("stream %s has no message: the search proves nothing about it (%v)", name, messages)
		}
	}
	return leaks
}

// inFiles searches every file under the data directory but the mailbox, with its name.
func inFiles(t *testing.T, in *instance, forms []form) []found {
	t.Helper()
	var leaks []found
	err := filepath.WalkDir(in.data, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == filepath.Join(in.data, "mailbox"):
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		content, err := os.ReadFile(path) //nolint:gosec // below the test's own directory
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, in.data)
		leaks = append(leaks, search(forms, "the file "+name, append([]byte(name+"\n"), content...))...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return leaks
}
