package token_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// effort is what calls ask of Redis and NATS, in the order of the alphabet.
type effort struct {
	mu  sync.Mutex
	all []string
}

func (e *effort) note(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, what)
}

func (e *effort) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	slices.Sort(all)
	return all
}

// DialHook, ProcessHook and ProcessPipelineHook implement redis.Hook. In which run Redis is, is asked at most five times a second whoever
// calls, so that it tells nothing.
func (e *effort) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (e *effort) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "info" {
			e.note("redis " + cmd.Name())
		}
		return next(ctx, cmd)
	}
}

func (e *effort) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			e.note("redis " + cmd.Name())
		}
		return next(ctx, cmds)
	}
}

// TestForeignIsMissing: for every call that takes a name, what another tenant has and what nobody has get the same answer for the same
// effort, in Redis and in the record.
func TestForeignIsMissing(t *testing.T) {
	w := start(t)
	r := w.createAll(lease("theirs"))[0]
	if _, err := w.profiles.SetProfile(as(t, tenant), &signingv1.SetProfileRequest{Name: "theirs"}); err != nil {
		t.Fatal(err)
	}
	w.settled()
	spent := &effort{}
	w.rdb.AddHook(spent)
	ear := w.NATS.Connect()
	said := make(chan *nats.Msg, 10_000)
	if _, err := ear.ChanSubscribe(">", said); err != nil {
		t.Fatal(err)
	}
	if err := ear.Flush(); err != nil {
		t.Fatal(err)
	}
	// took returns what the service asked since the last time: all that it said before it says that this is the end.
	took := func() []string {
		if err := w.conn.Publish("end", nil); err != nil {
			t.Fatal(err)
		}
		for m := <-said; m.Subject != "end"; m = <-said {
			if !slices.ContainsFunc([]string{"_INBOX.", "$JS.ACK.", "$JS.API.CONSUMER.", "$JS.EVENT.", "health."}, func(p string) bool { return strings.HasPrefix(m.Subject, p) }) {
				spent.note(shape(m.Subject))
			}
		}
		return spent.take()
	}
	const someone = "globex"
	theirs := names{r.GetId(), r.GetSigners()[0].GetId(), r.GetSigners()[0].GetHolder(), "theirs", "theirs"}
	nobodys := names{"req_AAAAAAAAAAAAAAAAAAAAAA", "lnk_AAAAAAAAAAAAAAAAAAAAAA", "per_AAAAAAAAAAAAAAAAAAAAAA", "nobodys", "nobodys"}
	for name, call := range w.namingCalls() {
		ask := func(n names) (proto.Message, []string) {
			answer, err := call(as(t, someone), n)
			if err != nil {
				answer = status.Convert(err).Proto()
			}
			return answer, took()
		}
		ask(nobodys) // what is done once, such as making an empty list, is done
		w.settled()
		took()
		foreign, forForeign := ask(theirs)
		missing, forMissing := ask(nobodys)
		if diff := cmp.Diff(missing, foreign, protocmp.Transform(), protocmp.IgnoreFields(&signingv1.ListLinksResponse{}, "watch_cursor")); diff != "" {
			t.Errorf("%s: what is foreign is answered otherwise than what is missing (-missing +foreign)\n%s", name, diff)
		}
		if diff := cmp.Diff(forMissing, forForeign); diff != "" {
			t.Errorf("%s: what is foreign costs another effort than what is missing (-missing +foreign)\n%s", name, diff)
		}
		if len(forMissing) == 0 {
			t.Errorf("%s: nothing was counted", name)
		}
	}
}

// shape is a subject without ids.
func shape(subject string) string {
	parts := strings.Split(subject, ".")
	for i, p := range parts {
		if strings.Contains(p, "_") && strings.ToLower(p[:3]) == p[:3] {
			parts[i], _, _ = strings.Cut(p, "_")
		}
	}
	return strings.Join(parts, ".")
}

// names are the names of one request, its link and the person who holds it, of a profile and of a reference.
type names struct{ request, link, person, profile, reference string }

// naming is a public call that takes a name.
type naming = func(context.Context, names) (proto.Message, error)

// namingCalls are all of them.
func (w *world) namingCalls() map[string]naming {
	all := w.requestCalls()
	maps.Copy(all, w.linkCalls())
	maps.Copy(all, w.profileCalls())
	return all
}

func (w *world) requestCalls() map[string]naming {
	keyed := 0
	key := func() string { keyed++; return strings.Repeat("k", keyed) }
	return map[string]naming{
		"Get": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.Get(ctx, &signingv1.GetRequest{Id: n.request})
		},
		"ListEvents": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.ListEvents(ctx, &signingv1.ListEventsRequest{Id: n.request})
		},
		"Cancel": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.Cancel(ctx, &signingv1.CancelRequest{Id: n.request})
		},
		"Cancel with a key": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.Cancel(ctx, &signingv1.CancelRequest{Id: n.request, Reason: "why", IdempotencyKey: key()})
		},
		"Erase": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.Erase(ctx, &signingv1.EraseRequest{Id: n.request, IdempotencyKey: key()})
		},
		"Erase one signer": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.Erase(ctx, &signingv1.EraseRequest{Id: n.request, Signer: n.link})
		},
		"Amend": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.Amend(ctx, &signingv1.AmendRequest{Id: n.request, Metadata: map[string]string{"a": "b"}, IdempotencyKey: key()})
		},
		"ReissueLink": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.ReissueLink(ctx, &signingv1.ReissueLinkRequest{Id: n.request, Signer: "1", IdempotencyKey: key()})
		},
		"RevokeLink": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.RevokeLink(ctx, &signingv1.RevokeLinkRequest{Id: n.request, Signer: n.link})
		},
		"IssueLink": func(ctx context.Context, n names) (proto.Message, error) {
			return w.signing.IssueLink(ctx, &signingv1.IssueLinkRequest{Id: n.request, Signer: n.link, IdempotencyKey: key()})
		},
		"Watch": func(ctx context.Context, n names) (proto.Message, error) {
			stream, err := w.signing.Watch(ctx, &signingv1.WatchRequest{Id: n.request})
			if err != nil {
				return nil, err
			}
			return stream.Recv()
		},
	}
}

func (w *world) linkCalls() map[string]naming {
	return map[string]naming{
		"GetLink": func(ctx context.Context, n names) (proto.Message, error) {
			return w.platform.GetLink(ctx, &signingv1.GetLinkRequest{Id: n.link})
		},
		"ListLinks": func(ctx context.Context, n names) (proto.Message, error) {
			return w.platform.ListLinks(ctx, &signingv1.ListLinksRequest{RequestId: n.request})
		},
		"ListLinks by reference": func(ctx context.Context, n names) (proto.Message, error) {
			return w.platform.ListLinks(ctx, &signingv1.ListLinksRequest{Reference: n.reference})
		},
		"ListLinks of a person": func(ctx context.Context, n names) (proto.Message, error) {
			return w.platform.ListLinks(ctx, &signingv1.ListLinksRequest{Holder: n.person, Profile: n.profile})
		},
		"WatchLinks": func(ctx context.Context, n names) (proto.Message, error) {
			stream, err := w.platform.WatchLinks(ctx, &signingv1.WatchLinksRequest{RequestId: n.request})
			if err != nil {
				return nil, err
			}
			return stream.Recv()
		},
		"IssueLinks": func(ctx context.Context, n names) (proto.Message, error) {
			stream, err := w.platform.IssueLinks(ctx)
			if err != nil {
				return nil, err
			}
			line := &signingv1.IssueLinkRequest{Id: n.request, Signer: n.link, IdempotencyKey: "k"}
			if err := stream.Send(&signingv1.IssueLinksRequest{Line: line}); err != nil {
				return nil, err
			}
			return stream.Recv()
		},
	}
}

func (w *world) profileCalls() map[string]naming {
	return map[string]naming{
		"GetProfile": func(ctx context.Context, n names) (proto.Message, error) {
			return w.profiles.GetProfile(ctx, &signingv1.GetProfileRequest{Name: n.profile})
		},
		"ListProfileVersions": func(ctx context.Context, n names) (proto.Message, error) {
			return w.profiles.ListProfileVersions(ctx, &signingv1.ListProfileVersionsRequest{Name: n.profile})
		},
		"RetireProfile": func(ctx context.Context, n names) (proto.Message, error) {
			return w.profiles.RetireProfile(ctx, &signingv1.RetireProfileRequest{Name: n.profile})
		},
		"SetProfile that must be there": func(ctx context.Context, n names) (proto.Message, error) {
			version := uint64(1)
			return w.profiles.SetProfile(ctx, &signingv1.SetProfileRequest{Name: n.profile, ExpectedVersion: &version})
		},
	}
}
