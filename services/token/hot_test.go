package token_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/limit"
	"countersign.dev/pkg/redisserver/redistest"
	"countersign.dev/pkg/secret"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

func connect(t *testing.T, addr string) redis.UniversalClient {
	t.Helper()
	rdb, err := hot.Connect(addr, secret.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// progress counts nothing.
type progress struct{}

func (progress) Begin(string, uint64) {}
func (progress) Read(int)             {}

// facts is the service's record, as the command line opens it.
func (w *world) facts() *eventlog.Log {
	w.t.Helper()
	log, err := eventlog.OpenLog(w.t.Context(), w.NATS.Connect(), eventlog.FactsStream(token.Name))
	if err != nil {
		w.t.Fatal(err)
	}
	return log
}

func (w *world) rebuild() hotstate.Rebuilt {
	w.t.Helper()
	done, err := hotstate.Rebuild(w.t.Context(), w.facts(), w.rdb, hot.New(w.rdb, 10*time.Second), token.HotState(), "", progress{})
	if err != nil {
		w.t.Fatal(err)
	}
	return done
}

func (w *world) verify() (hotstate.Verified, []hotstate.Difference) {
	w.t.Helper()
	var all []hotstate.Difference
	found, err := hotstate.Verify(w.t.Context(), w.facts(), w.rdb, hot.New(w.rdb, 10*time.Second), token.HotState(), "", progress{},
		func(d hotstate.Difference) error { all = append(all, d); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return found, all
}

func (w *world) list() []string {
	w.t.Helper()
	page, err := w.signing.List(as(w.t, tenant), &signingv1.ListRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, r := range page.GetRequests() {
		ids = append(ids, r.GetId())
	}
	return ids
}

func (w *world) revoke(request string) {
	w.t.Helper()
	if _, err := w.signing.RevokeLink(as(w.t, tenant), &signingv1.RevokeLinkRequest{Id: request, Signer: "1"}); err != nil {
		w.t.Fatal(err)
	}
}

// TestRunsOnACluster: no call of the service, and no decision of limits, touches two slots at once.
func TestRunsOnACluster(t *testing.T) {
	t.Parallel()
	w := startOn(t, connect(t, redistest.Cluster(t)))
	var ids []string
	for i := range 6 { // over all masters
		view := w.create(lease(fmt.Sprint(reference, i)))
		ids = append(ids, view.GetId())
		link := view.GetSigners()[0].GetId()
		first := w.mint(link, 1)
		w.sent(link, view.GetId(), 1)
		if code := w.resolve(first, "ada's"); code != "" {
			t.Errorf("a new link shows %q", code)
		}
		w.mustRedeem(first, "ada's")
		_, err := w.redeem(first, "eve's")
		refused(t, err, failure.LinkUsed)
		if code := w.session(link, "ada's", false); code != "" {
			t.Errorf("the session: %s", code)
		}
		w.peers.prove(browserOf("laptop"), w.link(link).GetHolderId())
		if _, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf("laptop")}); err != nil {
			t.Errorf("continue: %v", err)
		}
		w.reissue(view.GetId())
		w.mustRedeem(w.mint(link, 2), "laptop")
		if i == 0 {
			w.revoke(view.GetId())
		} else if _, err := w.links.AdmitSigning(t.Context(), admission(link, "laptop")); err != nil {
			t.Errorf("admit: %v", err)
		}
	}
	w.settled()
	slices.Reverse(ids)
	if got := w.list(); !slices.Equal(got, ids) {
		t.Errorf("listed %v, want %v", got, ids)
	}
	three := []limit.Limit{
		{Name: "address", Key: "192.0.2.1", Count: 2, Period: time.Hour, WhenDown: limit.FailClosed},
		{Name: "link", Key: "lnk_1", Count: 5, Period: time.Hour, WhenDown: limit.FailClosed},
		{Name: "tenant", Key: tenant, Count: 9, Period: time.Hour, WhenDown: limit.FailClosed},
	}
	limiter := limit.New(w.rdb, w.Keys, limit.Options{Timeout: 5 * time.Second})
	for i := range 3 {
		if d, err := limiter.Allow(t.Context(), three...); err != nil || d.Allowed != (i < 2) {
			t.Errorf("three limits, %d: %+v, %v", i, d, err)
		}
	}
	if found, differing := w.verify(); len(differing) != 0 || found.Compared != 13 || found.Listed != 6 {
		t.Errorf("found %+v, %v", found, differing)
	}
	w.flush()
	if done := w.rebuild(); done.Stored != 13 || done.Indexes != 1 {
		t.Errorf("rebuilt %+v", done)
	}
	if found, differing := w.verify(); len(differing) != 0 || found.Compared != 13 || found.Listed != 6 {
		t.Errorf("found %+v, %v", found, differing)
	}
}

// TestAPromotedReplicaRevivesNothing: a replica that lacks the last writes becomes the master, and all that happened stands: for
// what decides at once, and for what only shows within the second that it takes to notice.
func TestAPromotedReplicaRevivesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Sentinel(t)
	w := startOn(t, connect(t, s.Addr()))
	links := map[string]string{}
	tokens, requests := map[string]string{}, map[string]string{}
	for _, name := range []string{"used", "revoked", "renewed", "moved", "waiting"} {
		view := w.create(lease(reference + name))
		links[name], requests[name] = view.GetSigners()[0].GetId(), view.GetId()
		tokens[name] = w.mint(links[name], 1)
	}
	for _, name := range []string{"revoked", "renewed", "moved"} {
		w.mustRedeem(tokens[name], "ada's")
	}
	w.settled()
	if len(w.list()) != 5 {
		t.Fatal("not all are listed")
	}
	if n, err := w.rdb.Do(t.Context(), "WAIT", 1, 10_000).Int(); err != nil || n != 1 {
		t.Fatal("the replica is not in step", n, err)
	}
	s.Sever()
	w.mustRedeem(tokens["used"], "ada's")
	w.revoke(requests["revoked"])
	w.reissue(requests["renewed"])
	second := w.mint(links["renewed"], 2)
	w.peers.prove(browserOf("laptop"), w.link(links["moved"]).GetHolderId())
	if _, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: links["moved"], Browser: browserOf("laptop")}); err != nil {
		t.Fatal(err)
	}
	late := w.create(lease(reference + "late"))
	w.settled()
	s.Promote()
	// What is shown, first: nothing has put the newest states back yet.
	eventlogtest.Eventually(t, "the failover is noticed", func() bool { return w.session(links["moved"], "ada's", false) == failure.LinkUsed.Code })
	for what, got := range map[string][2]string{
		"a used token":      {w.resolve(tokens["used"], "eve's"), failure.LinkUsed.Code},
		"a revoked link":    {w.resolve(tokens["revoked"], "ada's"), failure.LinkRevoked.Code},
		"a revoked session": {w.session(links["revoked"], "ada's", false), failure.LinkRevoked.Code},
		"a former token":    {w.resolve(tokens["renewed"], "ada's"), failure.LinkSuperseded.Code},
		"a renewed token":   {w.resolve(second, "ada's"), ""},
		"a waiting token":   {w.resolve(tokens["waiting"], "ada's"), ""},
		"a session":         {w.session(links["used"], "ada's", false), ""},
	} {
		if got[0] != got[1] {
			t.Errorf("%s shows %q, want %q", what, got[0], got[1])
		}
	}
	// What decides.
	for name, want := range map[string]*failure.Error{"used": failure.LinkUsed, "revoked": failure.LinkRevoked, "renewed": failure.LinkSuperseded} {
		_, err := w.redeem(tokens[name], "eve's")
		refused(t, err, want)
	}
	for name, browser := range map[string]string{"used": "ada's", "moved": "laptop"} {
		if code := w.session(links[name], browser, true); code != "" {
			t.Errorf("the session of the link that was %s does not go on: %s", name, code)
		}
	}
	for _, name := range []string{"revoked", "moved"} {
		if _, err := w.links.AdmitSigning(t.Context(), admission(links[name], "ada's")); err == nil {
			t.Errorf("the session of the link that was %s signs", name)
		}
	}
	if got := w.list(); len(got) != 6 || got[0] != late.GetId() {
		t.Errorf("listed %v", got)
	}
	w.settled()
	// What the replica kept is named until it is written again.
	w.rebuild()
	if found, differing := w.verify(); len(differing) != 0 || found.Compared != 13 || found.FormerRun != 0 || found.Listed != 6 {
		t.Errorf("found %+v, %v", found, differing)
	}
}

// TestServiceGoesOnWhileRedisIsFilled: emptied again and again, and filled by the command and by what is read, all at once.
func TestServiceGoesOnWhileRedisIsFilled(t *testing.T) {
	w := start(t)
	const signers = 6
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var busy sync.WaitGroup
	for i := range signers {
		busy.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				view := w.create(lease(fmt.Sprint(reference, i, "-", n)))
				link := view.GetSigners()[0].GetId()
				secret := w.mint(link, 1)
				if code := w.resolve(secret, "ada's"); code != "" {
					t.Errorf("a new link shows %q", code)
				}
				w.mustRedeem(secret, "ada's")
				if _, err := w.redeem(secret, "eve's"); !errors.Is(failure.From(err), failure.LinkUsed) {
					t.Errorf("used again: %v", err)
				}
				if code := w.resolve(secret, "ada's"); code != "" {
					t.Errorf("its session shows %q", code)
				}
			}
		})
	}
	for ctx.Err() == nil {
		w.flush()
		w.rebuild()
		w.list()
	}
	busy.Wait()
	w.settled()
	w.rebuild()
	found, differing := w.verify()
	if len(differing) != 0 || found.Compared != found.Records || found.Listed != found.Records/2 {
		t.Errorf("found %+v, %v", found, differing)
	}
}

// TestVerifyComparesTheList: what is missing on it and what is on it only is named, and mended.
func TestVerifyComparesTheList(t *testing.T) {
	w := start(t)
	lost, stays := w.create(lease(reference+"lost")).GetId(), w.create(lease(reference+"stays")).GetId()
	w.settled()
	w.list()
	listed := hot.Key(tenant, "requests")
	w.rdb.ZRem(t.Context(), listed, lost)
	w.rdb.ZAdd(t.Context(), listed, redis.Z{Member: "req_never"})
	_, differing := w.verify()
	got := map[string]string{}
	for _, d := range differing {
		got[d.ID] = d.What
		if d.Key != listed || d.Tenant != tenant {
			t.Errorf("named %+v", d)
		}
		if err := hotstate.Repair(t.Context(), w.rdb, hot.New(w.rdb, time.Second), token.HotState(), d); err != nil {
			t.Error(err)
		}
	}
	if len(differing) != 2 || got[lost] != hotstate.NotListed || got["req_never"] != hotstate.ListedOnly {
		t.Errorf("named %v", differing)
	}
	if ids := w.list(); !slices.Equal(ids, []string{stays, lost}) {
		t.Errorf("after the repair: %v", ids)
	}
	if found, differing := w.verify(); len(differing) != 0 || found.Listed != 2 {
		t.Errorf("found %+v, %v", found, differing)
	}
}
