package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// TestAClientsLimit: a client's calls by REST and by gRPC count together. A refusal says how long to wait, to the microsecond, in either
// way, and a call after that wait is let through. Emptied, Redis forgets what a client called; nothing else depends on it.
func TestAClientsLimit(t *testing.T) {
	t.Parallel()
	in := newInstance(t, calmSettings, "--client-rate", "1", "--client-burst", "4")
	in.start("")
	ctx := within(t, time.Minute)
	conn, err := grpc.NewClient(in.Addresses.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is under way
	signing := signingv1.NewSigningRequestServiceClient(conn)
	// wait makes a call and returns how long to wait; 0 means that it was let through.
	byGRPC := func() time.Duration {
		_, err := signing.List(ctx, &signingv1.ListRequest{})
		f := failure.From(err)
		switch {
		case err == nil:
			return 0
		case f == nil || f.Code != failure.RateLimited.Code || f.RetryAfter <= 0:
			t.Fatalf("gRPC answered %v", err)
		}
		return f.RetryAfter
	}
	byREST := func() time.Duration { return restWait(ctx, t, in.Addresses.HTTP) }

	let := 0
	for i := 0; ; i++ {
		ask := byGRPC
		if i%2 == 0 {
			ask = byREST
		}
		wait := ask()
		if wait == 0 {
			let++
			continue
		}
		if let < 4 || wait > time.Second {
			t.Errorf("%d calls were let through, then one is to wait %v", let, wait)
		}
		break
	}
	for _, ask := range []func() time.Duration{byGRPC, byREST} {
		wait := ask()
		for wait == 0 { // a slow machine: a second has passed
			wait = ask()
		}
		pause(ctx, wait)
		if more := ask(); more != 0 {
			t.Errorf("it waited %v, as it was told, and is to wait %v more", wait, more)
		}
	}
	rdb := redis.NewClient(&redis.Options{Addr: in.Addresses.Redis})
	defer rdb.Close() //nolint:errcheck // nothing is under way
	if err := rdb.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if wait := byREST(); wait != 0 {
			t.Errorf("call %d after Redis was emptied is to wait %v", i+1, wait)
		}
	}
	in.stop()
}

// restWait asks for the list of requests and returns how long to wait.
func restWait(ctx context.Context, t *testing.T, address string) time.Duration {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/v1/requests", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	var problem struct {
		Code string
		Wait string `json:"retry_after"`
	}
	if err := json.NewDecoder(res.Body).Decode(&problem); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		return 0
	}
	wait, err := time.ParseDuration(problem.Wait)
	if err != nil || wait <= 0 || problem.Code != failure.RateLimited.Code || res.StatusCode != http.StatusTooManyRequests {
		t.Fatalf("REST answered %d %+v", res.StatusCode, problem)
	}
	// The header has whole seconds, never too few.
	if seconds := strconv.Itoa(int((wait + time.Second - 1) / time.Second)); res.Header.Get("Retry-After") != seconds {
		t.Errorf("to wait %v, and Retry-After is %q", wait, res.Header.Get("Retry-After"))
	}
	return wait
}
