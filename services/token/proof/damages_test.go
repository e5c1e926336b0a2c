package proof

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/pkg/redisserver"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// TestDamagedRecord starts the service on records that something befell, each a copy of the same one. It refuses by name or is harmless:
// each link is as it was, or cannot be read and opens nothing. No token that was used, rotated or revoked works again, and nothing panics.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	r := newKept(t)
	all := damages(r.first, r.last)
	if len(all) < 50 {
		t.Fatalf("%d damages", len(all))
	}
	var mu sync.Mutex
	verdicts := map[verdict]int{}
	t.Run("each", func(t *testing.T) {
		for _, d := range all {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				v, why := r.try(t, d)
				mu.Lock()
				defer mu.Unlock()
				verdicts[v]++
				if testing.Verbose() {
					t.Logf("%s: %s", v, why)
				}
				if d.name == "none" && v != harmless || d.name == "killed" && v != harmless {
					t.Errorf("nothing befell it, and it is %s: %s", v, why)
				}
			})
		}
	})
	t.Logf("%d damages: %v", len(all), verdicts)
	if verdicts[harmless] == 0 || verdicts[refuses] == 0 {
		t.Error("no damage is harmless, or none is refused")
	}
}

// verdict is how the service took a damage.
type verdict string

const (
	harmless verdict = "harmless"
	refuses  verdict = "refused by name"
	closed   verdict = "closed: some links cannot be read"
)

// kept is a record of links of every kind, as it was before the tokens were used, as a server left it that was stopped, and as one that
// was killed.
type kept struct {
	dir, keys, marks string
	ring             *keys.Ring
	request          string
	first, last      string
	over             map[string]string // what must open nothing: token to what became of it
	links            map[string]*tokenv1.Link
}

const filler = 80 // facts of 60 KB between the beginning and the end of the record, so that it has more than one block

func newKept(t *testing.T) *kept {
	t.Helper()
	k := &kept{dir: quickDir(t), marks: t.TempDir(), keys: filepath.Join(t.TempDir(), "keys"), over: map[string]string{}, links: map[string]*tokenv1.Link{}}
	var err error
	if k.ring, err = keys.Create(k.keys); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(k.dir, "live")
	w := k.open(t, live)
	seats := w.create(t, 6)
	k.request = w.request
	first := map[string]string{}
	for _, seat := range seats {
		first[seat] = w.mint(t, seat, 1)
	}
	w.fill(t)
	w.close(t)
	k.keep(t, live, "older")
	w = k.open(t, live)
	k.use(t, w, seats, first)
	for _, seat := range seats {
		k.links[seat] = w.link(t, seat)
	}
	w.settle(t)
	k.keep(t, live, "killed")
	w.close(t)
	k.keep(t, live, "stopped")
	if k.first, k.last, err = blocksOf(filepath.Join(k.dir, "stopped", streamsDir, "FACTS_TOKEN")); err != nil {
		t.Fatal(err)
	}
	return k
}

// streamsDir is where a server keeps its streams.
const streamsDir = "jetstream/$G/streams"

// keep copies the files of a record.
func (k *kept) keep(t *testing.T, from, name string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(k.dir, name), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// use has everything happen to the links after which a token is over.
func (k *kept) use(t *testing.T, w *working, seats []string, first map[string]string) {
	t.Helper()
	ctx := platformOf(t.Context())
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	redeem := func(seat string) {
		_, err := w.links.Redeem(t.Context(), &tokenv1.RedeemRequest{Token: first[seat], Browser: browserOf(1)})
		must("redeem", err)
	}
	reissue := func(seat string) {
		_, err := w.platform.ReissueLink(ctx, &signingv1.ReissueLinkRequest{Id: w.request, Signer: seat})
		must("reissue", err)
	}
	used, withdrawn, rotated, done, both := seats[0], seats[1], seats[2], seats[3], seats[4]
	redeem(used)
	_, err := w.platform.RevokeLink(ctx, &signingv1.RevokeLinkRequest{Id: w.request, Signer: withdrawn})
	must("revoke", err)
	reissue(rotated)
	w.mint(t, rotated, 2)
	redeem(done)
	_, err = w.links.AdmitSigning(t.Context(), &tokenv1.AdmitSigningRequest{Tenant: tenant, LinkId: done, Browser: browserOf(1), AdmissionId: "adm_1"})
	must("admit", err)
	body, err := record(w.request, &ceremonyv1.CeremonySigned{LinkId: done, SessionId: "ses_1"}, &ceremonyv1.Ceremony{})
	must("record", err)
	_, err = w.js.Publish(t.Context(), eventlog.FactSubject("ceremony", eventlog.Key{Tenant: tenant, ID: "cer_1"}), body)
	must("sign", err)
	redeem(both)
	reissue(both)
	w.mint(t, both, 2)
	eventlogtest.Eventually(t, "the signature is heard of", func() bool { return w.link(t, done).GetStatus() == tokenv1.LinkStatus_LINK_STATUS_SIGNED })
	for seat, what := range map[string]string{used: "used", withdrawn: "revoked", rotated: "rotated", done: "signed", both: "used and rotated"} {
		k.over[first[seat]] = what
	}
}

// working is the service on one copy of the record.
type working struct {
	*single
	server  *natsserver.Server
	request string
}

// open starts a server on a folder, with the streams that it should have, and the service on it.
func (k *kept) open(t *testing.T, dir string) *working {
	t.Helper()
	server, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	k.provision(t, server)
	s, err := startSingle(t, k.place(t, server, k.marks), &peers{})
	if err != nil {
		t.Fatal(err)
	}
	return &working{single: s, server: server, request: k.request}
}

// provision makes the streams that are missing, as `init` does.
func (k *kept) provision(t *testing.T, server *natsserver.Server) {
	t.Helper()
	_, js := connect(t, server.URL())
	if _, err := eventlog.Provision(t.Context(), js, topology(), 1, func(string) map[string]string {
		return map[string]string{eventlog.BirthKey: uuid.NewString(), eventlog.KeysKey: k.ring.ID(), eventlog.SyncKey: eventlog.SyncAlways}
	}); err != nil {
		t.Fatal(err)
	}
}

// place is a process of the service with an empty Redis of its own.
func (k *kept) place(t *testing.T, server *natsserver.Server, marks string) place {
	t.Helper()
	rdb, err := redisserver.Start(t.Context(), redisserver.Options{Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rdb.Stop)
	return place{
		nats: server.URL(), redis: rdb.Addr(), marks: marks, keys: k.keys, ring: k.ring, clock: clock.System(), tenants: config.Default(), logs: &logs{},
	}
}

func (w *working) close(t *testing.T) {
	t.Helper()
	w.stop()
	w.server.Stop()
}

func (w *working) settle(t *testing.T) {
	t.Helper()
	if err := w.settled(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (w *working) create(t *testing.T, n int) []string {
	t.Helper()
	answer, err := w.platform.Create(platformOf(t.Context()), &signingv1.CreateRequest{Request: request("kept", "standard", n), IdempotencyKey: "once"})
	if err != nil {
		t.Fatal(err)
	}
	w.request = answer.GetRequest().GetId()
	var seats []string
	for _, s := range answer.GetRequest().GetSigners() {
		seats = append(seats, s.GetId())
		eventlogtest.Eventually(t, "the link is issued", func() bool {
			_, err := w.links.GetLink(t.Context(), &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: s.GetId()})
			return err == nil
		})
	}
	return seats
}

func (w *working) mint(t *testing.T, link string, generation uint32) string {
	t.Helper()
	answer, err := w.links.Mint(t.Context(), &tokenv1.MintRequest{Tenant: tenant, LinkId: link, Generation: generation, DeliveryId: "dlv_1"})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetToken()
}

func (w *working) link(t *testing.T, id string) *tokenv1.Link {
	t.Helper()
	answer, err := w.links.GetLink(t.Context(), &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: id})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetLink()
}

// fill makes the record long.
func (w *working) fill(t *testing.T) {
	t.Helper()
	for i := range filler {
		state := &tokenv1.Link{Id: "lnk_filler", Tenant: tenant, Traceparent: strings.Repeat(fmt.Sprint(i%10), 60_000)}
		body, err := record("req_filler", &tokenv1.LinkDenied{Code: "LINK_USED"}, state)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.js.Publish(t.Context(), eventlog.FactSubject("token", eventlog.Key{Tenant: tenant, ID: "lnk_filler"}), body); err != nil {
			t.Fatal(err)
		}
	}
}

// named is how a refusal says what is wrong: a stream, a consumer, a mark or the server's folder.
var named = regexp.MustCompile(`stream [A-Z_]+|stream not found|consumer \S+ of [A-Z_]+|mark \S+|JetStream did not start on`)

// try damages a copy of the record and starts the service on it.
func (k *kept) try(t *testing.T, d damage) (verdict, string) {
	t.Helper()
	dir, base, marks := quickDir(t), "stopped", t.TempDir()
	if d.killed {
		base = "killed"
	}
	if err := errors.Join(os.CopyFS(dir, os.DirFS(filepath.Join(k.dir, base))), os.CopyFS(marks, os.DirFS(k.marks))); err != nil {
		t.Fatal(err)
	}
	if err := d.do(damaged{streams: filepath.Join(dir, streamsDir), older: filepath.Join(k.dir, "older", streamsDir)}); err != nil {
		t.Fatal(err)
	}
	server, err := natsserver.Start(natsserver.Options{Listen: "127.0.0.1:0", Dir: dir})
	if err != nil {
		return k.refused(t, err)
	}
	t.Cleanup(server.Stop)
	if d.anew {
		k.provision(t, server)
	}
	p := k.place(t, server, marks)
	s, err := startSingle(t, p, &peers{})
	if err != nil {
		return k.refused(t, err)
	}
	t.Cleanup(s.stop)
	if err := s.settled(t.Context()); err != nil {
		k.nothingWorks(t, s)
		return k.refused(t, err)
	}
	k.nothingWorks(t, s)
	return k.asBefore(t, s)
}

// refused wants an error that names what is wrong.
func (k *kept) refused(t *testing.T, err error) (verdict, string) {
	t.Helper()
	if !named.MatchString(err.Error()) {
		t.Errorf("it refuses without a name: %v", err)
	}
	return refuses, err.Error()
}

// nothingWorks tries every token that is over, in another browser.
func (k *kept) nothingWorks(t *testing.T, s *single) {
	t.Helper()
	for token, what := range k.over {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if _, err := s.links.Redeem(ctx, &tokenv1.RedeemRequest{Token: token, Browser: browserOf(2)}); err == nil {
			t.Errorf("a token that was %s works again", what)
		}
		cancel()
	}
}

// asBefore compares every link with what it was.
func (k *kept) asBefore(t *testing.T, s *single) (verdict, string) {
	t.Helper()
	said := harmless
	var why []string
	for id, was := range k.links {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		answer, err := s.links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: id})
		cancel()
		refusal := failure.From(err)
		switch now := answer.GetLink(); {
		case err != nil && (refusal == nil || refusal.Code == failure.Internal.Code || refusal.Code == failure.Unavailable.Code):
			said = closed
			why = append(why, err.Error())
		case err != nil:
			t.Errorf("a link that was %s at generation %d is answered with %v", was.GetStatus(), was.GetGeneration(), err)
		case now.GetStatus() != was.GetStatus() || now.GetGeneration() != was.GetGeneration() || now.GetSession().GetId() != was.GetSession().GetId():
			t.Errorf("a link that was %s at generation %d is %s at %d", was.GetStatus(), was.GetGeneration(), now.GetStatus(), now.GetGeneration())
		}
	}
	return said, strings.Join(why, "; ")
}
