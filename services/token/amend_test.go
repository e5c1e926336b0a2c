package token_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const newMail = "ada@byron.example"

func (w *world) amend(req *signingv1.AmendRequest) (*signingv1.RequestView, error) {
	answer, err := w.signing.Amend(as(w.t, tenant), req)
	return answer.GetRequest(), err
}

func (w *world) mustAmend(req *signingv1.AmendRequest) *signingv1.RequestView {
	w.t.Helper()
	view, err := w.amend(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return view
}

// request returns a request as the record has it.
func (w *world) request(id string) *tokenv1.Request {
	w.t.Helper()
	answer, err := w.directory.GetRequest(w.t.Context(), &tokenv1.GetRequestRequest{Tenant: tenant, RequestId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetRequest()
}

func readdress(id, signer, mail string) *signingv1.AmendRequest {
	return &signingv1.AmendRequest{Id: id, Signers: []*signingv1.SignerAmendment{{Signer: signer, Email: proto.String(mail)}}, Reason: "she moved"}
}

// TestAmendAddress: the link is rotated in one step, even from under an open session; what went to the old address is dead and says
// so, what was proved from there counts for nothing, and the same call again changes nothing.
func TestAmendAddress(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	old, spare := w.mint(link, 1), w.mint(link, 1)
	w.sent(link, view.GetId(), 1)
	w.mustRedeem(old, "ada's")
	before := w.link(link).GetHolderId()
	w.peers.prove(browserOf("ada's"), before)

	got := w.mustAmend(readdress(view.GetId(), "1", newMail))
	if s := got.GetSigners()[0]; s.GetEmail() != newMail || s.GetName() != adaName || s.GetGeneration() != 2 {
		t.Errorf("shown as %v", s)
	}
	for _, token := range []string{old, spare} {
		if code := w.resolve(token, "ada's"); code != failure.LinkReaddressed.Code {
			t.Errorf("the old mail's link says %q", code)
		}
		_, err := w.redeem(token, "ada's")
		refused(t, err, failure.LinkReaddressed)
	}
	if code := w.session(link, "ada's", true); code != failure.SessionUnknown.Code {
		t.Errorf("the old session is %q", code)
	}
	_, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf("ada's")})
	refused(t, err, failure.ReissueUnproved)
	now := w.link(link)
	if now.GetHolderId() == before || !slices.Equal(now.GetFormerHolderIds(), []string{before}) {
		t.Errorf("held by %s, before by %v", now.GetHolderId(), now.GetFormerHolderIds())
	}
	for range 2 {
		w.mustAmend(readdress(view.GetId(), link, newMail))
	}
	w.settled()
	if n := w.stated(link, "LinkReissued"); n != 1 {
		t.Errorf("rotated %d times", n)
	}
	eventlogtest.Eventually(t, "the request knows who signs", func() bool {
		return w.request(view.GetId()).GetSeats()[0].GetPersonId() == now.GetHolderId()
	})
	if n := w.stated(view.GetId(), "RequestAmended"); n != 1 {
		t.Errorf("amended %d times", n)
	}
	w.mustRedeem(w.mint(link, 2), "new")

	// Back again is another change: nothing of the first address comes to life.
	w.mustAmend(readdress(view.GetId(), "1", adaMail))
	if code := w.resolve(old, "ada's"); code != failure.LinkReaddressed.Code || w.link(link).GetHolderId() == before {
		t.Errorf("back at the old address its first link is %q", code)
	}
	w.settled()
	if events := w.told(view.GetId(), 3); strings.Join(events, ",") != "accepted,amended,amended" {
		t.Errorf("told %v", events)
	}
	w.private(newMail, "she moved")
}

// TestAmendWhileSigning: a signature that is being made holds an amendment off, one that was made refuses it by name, and nothing of
// either call is done.
func TestAmendWhileSigning(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Signers = []*signingv1.Signer{person(adaMail, 1), person(graceMail, 1), person("bob@example.com", 2)}
	view := w.create(r)
	link := view.GetSigners()[0].GetId()
	w.mustRedeem(w.mint(link, 1), "ada's")
	if _, err := w.links.AdmitSigning(t.Context(), admission(link, "ada's")); err != nil {
		t.Fatal(err)
	}
	both := readdress(view.GetId(), "1", newMail)
	both.Deadline = timestamppb.New(w.clock.Now(tenant).Add(24 * time.Hour))
	_, err := w.amend(both)
	if f := refused(t, err, failure.LinkBusy); f.RetryAfter <= 0 {
		t.Errorf("retry after %s", f.RetryAfter)
	}
	_, err = w.amend(&signingv1.AmendRequest{Id: view.GetId(), Signers: []*signingv1.SignerAmendment{{Signer: "1", Name: proto.String("Augusta")}}})
	refused(t, err, failure.LinkBusy)
	// The admission is over, the signature was made and not heard of: ceremony is asked.
	w.peers.sign(link)
	w.clock.Advance(tenant, 3*time.Minute)
	_, err = w.amend(both)
	refused(t, err, failure.LinkBusy)
	w.signed(link, view.GetId())
	w.told(view.GetId(), 2)
	_, err = w.amend(both)
	if f := refused(t, err, failure.AmendTooLate); len(f.Fields) != 1 || f.Fields[0].Path != "signers[0]" {
		t.Errorf("refused %v", f.Fields)
	}
	if w.stated(view.GetId(), "RequestAmended") != 0 || w.stated(link, "LinkReissued") != 0 {
		t.Error("something was changed")
	}
	// The others can still be amended, and so can who waits.
	w.mustAmend(readdress(view.GetId(), "2", "grace@navy.example"))
	got := w.mustAmend(readdress(view.GetId(), "3", "bob@byron.example"))
	if got.GetSigners()[2].GetEmail() != "bob@byron.example" || w.link(view.GetSigners()[2].GetId()) != nil {
		t.Errorf("who waits is %v", got.GetSigners()[2])
	}
}

// TestAmendOrder: who waits changes places; a group that somebody was moved into goes on with them.
func TestAmendOrder(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Signers = []*signingv1.Signer{person(adaMail, 1), person(graceMail, 2), person("bob@example.com", 3)}
	view := w.create(r)
	ids := []string{view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId(), view.GetSigners()[2].GetId()}
	group := func(signer string, group uint32) *signingv1.AmendRequest {
		return &signingv1.AmendRequest{Id: view.GetId(), Signers: []*signingv1.SignerAmendment{{Signer: signer, Group: &group}}}
	}
	_, err := w.amend(group("1", 2))
	if f := refused(t, err, failure.AmendTooLate); f.Fields[0].Path != "signers[0].group" {
		t.Errorf("refused %v", f.Fields)
	}
	w.mustAmend(group("2", 4)) // after bob
	w.signed(ids[0], view.GetId())
	w.issued(ids[2])
	_, err = w.amend(group("2", 1))
	refused(t, err, failure.AmendTooLate)
	if w.link(ids[1]) != nil {
		t.Fatal("grace was asked before her turn")
	}
	w.mustAmend(group("2", 3)) // beside bob, whose turn it is
	w.issued(ids[1])
	w.signed(ids[2], view.GetId())
	w.told(view.GetId(), 5)
	w.signed(ids[1], view.GetId())
	if events := w.told(view.GetId(), 6); events[5] != "completed" {
		t.Errorf("told %v", events)
	}
	_, err = w.amend(group("2", 3))
	refused(t, err, failure.RequestClosed)
}

// TestAmendInPlace: name, language and zone change without another link; metadata is merged; a reissue may bring both a reason and metadata.
func TestAmendInPlace(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Metadata = map[string]string{"deal": "42", "stage": "draft"}
	view := w.create(r)
	link := view.GetSigners()[0].GetId()
	token := w.mint(link, 1)
	before := w.request(view.GetId())
	got := w.mustAmend(&signingv1.AmendRequest{
		Id: view.GetId(), Metadata: map[string]string{"stage": "", "owner": "sales"},
		Signers: []*signingv1.SignerAmendment{{Signer: "1", Name: proto.String("Augusta Ada King"), Locale: proto.String("de"), TimeZone: proto.String("Europe/London")}},
	})
	if m := got.GetMetadata(); len(m) != 2 || m["deal"] != "42" || m["owner"] != "sales" {
		t.Errorf("metadata %v", m)
	}
	if s := got.GetSigners()[0]; s.GetName() != "Augusta Ada King" || s.GetGeneration() != 1 || w.resolve(token, "") != "" {
		t.Errorf("shown as %v", s)
	}
	after := w.request(view.GetId())
	if proto.Equal(before.GetSeats()[0], after.GetSeats()[0]) || after.GetSeats()[0].GetPersonId() != before.GetSeats()[0].GetPersonId() {
		t.Error("the commitments are those to the old name, or somebody else signs")
	}
	answer, err := w.signing.ReissueLink(as(t, tenant), &signingv1.ReissueLinkRequest{
		Id: view.GetId(), Signer: "1", Reason: "the mail was lost", Metadata: map[string]string{"stage": "again"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: view.GetId(), Signer: "1", Reason: "sent by mistake"}); err != nil {
		t.Fatal(err)
	}
	shown, err := w.signing.Get(as(t, tenant), &signingv1.GetRequest{Id: view.GetId()})
	if err != nil || shown.GetRequest().GetMetadata()["stage"] != "again" {
		t.Errorf("metadata %v, %v", shown.GetRequest().GetMetadata(), err)
	}
	lineage := shown.GetRequest().GetSigners()[0].GetGenerations()
	if len(lineage) != 2 || answer.GetSigner().GetGeneration() != 2 ||
		lineage[0].GetOrigin() != signingv1.LinkOrigin_LINK_ORIGIN_ISSUED || lineage[0].GetEnd() != signingv1.LinkEnd_LINK_END_SUPERSEDED ||
		lineage[1].GetOrigin() != signingv1.LinkOrigin_LINK_ORIGIN_PLATFORM || lineage[1].GetReason() != "the mail was lost" ||
		lineage[1].GetEnd() != signingv1.LinkEnd_LINK_END_REVOKED || lineage[1].GetEndReason() != "sent by mistake" {
		t.Errorf("lineage %v", lineage)
	}
	w.private("Augusta Ada King", "the mail was lost", "sent by mistake", "again")
}

// TestAmendRefused: every wrong field is named, by gRPC and on the intake subject alike, and the same answer goes to strangers.
func TestAmendRefused(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	bad := &signingv1.AmendRequest{
		Id: view.GetId(), Deadline: timestamppb.New(w.clock.Now(tenant)), Metadata: map[string]string{"deal": "4\u202e2"},
		Signers: []*signingv1.SignerAmendment{{Signer: "1"}, {Signer: "2", Email: proto.String("no address")}},
	}
	_, err := w.amend(bad)
	if got := pathsOf(refused(t, err, failure.RequestInvalid)); got != `deadline metadata["deal"] signers[0]` {
		t.Errorf("refused %s", got)
	}
	bad = &signingv1.AmendRequest{Id: view.GetId(), Signers: []*signingv1.SignerAmendment{
		{Signer: "1", Email: proto.String(graceMail), TimeZone: proto.String("Mars/Olympus")}, {Signer: "2", Name: proto.String("x")}, {Signer: view.GetSigners()[0].GetId(), Name: proto.String("y")},
	}}
	_, err = w.amend(bad)
	if got := pathsOf(refused(t, err, failure.RequestInvalid)); got != "signers[0].email signers[0].time_zone signers[1].signer signers[2].signer" {
		t.Errorf("refused %s", got)
	}
	for _, at := range []time.Duration{0, -time.Hour, 6 * 366 * 24 * time.Hour} {
		_, err := w.amend(&signingv1.AmendRequest{Id: view.GetId(), Deadline: timestamppb.New(w.clock.Now(tenant).Add(at))})
		if got := pathsOf(refused(t, err, failure.RequestInvalid)); got != "deadline" {
			t.Errorf("a deadline %s from now: refused %s", at, got)
		}
	}
	_, err = w.amend(&signingv1.AmendRequest{Id: view.GetId()})
	refused(t, err, failure.RequestInvalid)
	_, err = w.signing.Amend(as(t, "globex"), readdress(view.GetId(), "1", newMail))
	refused(t, err, failure.RequestUnknown)
	reader := auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "key_2", Tenant: tenant, Kind: auth.Platform, Scopes: []string{auth.RequestsRead, auth.LinksReissue}}))
	_, err = w.signing.Amend(reader, readdress(view.GetId(), "1", newMail))
	refused(t, err, failure.PermissionDenied)

	body, err := protojson.Marshal(bad)
	if err != nil {
		t.Fatal(err)
	}
	w.publish(body, "ce-type", "countersign.signing.v1.AmendRequest")
	w.told(view.GetId(), 2)
	if o := w.outcomes(view.GetId())[1]; o.GetEvent() != "rejected" || paths(o.GetFields()) != "signers[0].email signers[0].time_zone signers[1].signer signers[2].signer" {
		t.Errorf("told %v", o)
	}
	body, err = protojson.Marshal(readdress(view.GetId(), "1", newMail))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.publish(body, "ce-type", "countersign.signing.v1.AmendRequest")
	}
	eventlogtest.Eventually(t, "the address is changed", func() bool { return w.link(view.GetSigners()[0].GetId()).GetGeneration() == 2 })
	w.settled()
	if w.link(view.GetSigners()[0].GetId()).GetGeneration() != 2 || len(w.messages("DEAD", ">")) != 0 {
		t.Error("told twice, it was done twice or left behind")
	}
}

func pathsOf(f *failure.Error) string {
	var all []string
	for _, field := range f.Fields {
		all = append(all, field.Path)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// fires has the timer of an aggregate fire now: what is due is decided from the record and the tenant's clock.
func (w *world) fires(id string) {
	w.t.Helper()
	if _, err := w.JS.Publish(w.t.Context(), "due.token."+tenant+"."+id, nil); err != nil {
		w.t.Fatal(err)
	}
	eventlogtest.Eventually(w.t, "the timer is heard", func() bool {
		c, err := w.JS.Consumer(w.t.Context(), "TIMERS_TOKEN", "due")
		if err != nil {
			w.t.Fatal(err)
		}
		info, err := c.Info(w.t.Context())
		return err == nil && info.NumPending+uint64(info.NumAckPending) == 0
	})
}

// TestDeadline: links are capped, nobody gets in or a new link after it, who began in time may finish within grace, and then the
// request expires, once.
func TestDeadline(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Signers = []*signingv1.Signer{person(adaMail, 1), person(graceMail, 1), person("bob@example.com", 2)}
	deadline := w.clock.Now(tenant).Add(2 * time.Hour)
	r.Deadline = timestamppb.New(deadline)
	view := w.create(r)
	ada, grace, bob := view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId(), view.GetSigners()[2].GetId()
	w.issued(grace)
	token := w.mint(grace, 1)
	for _, link := range []string{ada, grace} {
		w.sent(link, view.GetId(), 1)
		if got := w.link(link).GetExpiresAt().AsTime(); !got.Equal(deadline.Truncate(time.Nanosecond)) {
			t.Errorf("%s expires at %s, the deadline is %s", link, got, deadline)
		}
	}
	// Sooner, then later: links and timer follow.
	sooner := deadline.Add(-time.Hour)
	w.mustAmend(&signingv1.AmendRequest{Id: view.GetId(), Deadline: timestamppb.New(sooner)})
	if got := w.link(grace).GetExpiresAt().AsTime(); !got.Equal(sooner) {
		t.Errorf("expires at %s, the deadline is %s", got, sooner)
	}
	deadline = deadline.Add(time.Hour)
	if got := w.mustAmend(&signingv1.AmendRequest{Id: view.GetId(), Deadline: timestamppb.New(deadline)}); !got.GetDeadline().AsTime().Equal(deadline) {
		t.Errorf("shown with deadline %s", got.GetDeadline().AsTime())
	}
	if got := w.link(grace).GetExpiresAt().AsTime(); !got.Equal(deadline) {
		t.Errorf("expires at %s, the deadline is %s", got, deadline)
	}
	w.clock.Advance(tenant, deadline.Sub(w.clock.Now(tenant))-20*time.Minute)
	w.mustRedeem(w.mint(ada, 1), "ada's")
	w.clock.Advance(tenant, 20*time.Minute+time.Second)

	if code := w.resolve(token, "grace's"); code != failure.RequestExpired.Code {
		t.Errorf("after the deadline the link is %q", code)
	}
	_, err := w.signing.ReissueLink(as(t, tenant), &signingv1.ReissueLinkRequest{Id: view.GetId(), Signer: "2"})
	refused(t, err, failure.RequestExpired)
	if code := w.session(ada, "ada's", true); code != "" {
		t.Errorf("begun in time, within grace the session is %q", code)
	}
	w.fires(view.GetId())
	if w.stated(view.GetId(), "RequestExpired")+w.stated(view.GetId(), "RequestCancelBegun") != 0 {
		t.Fatal("expired, or shut, while somebody may finish")
	}
	w.clock.Advance(tenant, 40*time.Minute) // the session's own end comes before the end of grace
	w.fires(view.GetId())
	eventlogtest.Eventually(t, "the request expires", func() bool { return w.stated(view.GetId(), "RequestExpired") == 1 })
	for _, link := range []string{ada, grace, bob} {
		eventlogtest.Eventually(t, "the link is closed", func() bool { return w.stated(link, "LinkClosed") == 1 })
	}
	if code := w.resolve(token, "grace's"); code != failure.RequestExpired.Code {
		t.Errorf("closed, the link is %q", code)
	}
	_, err = w.links.AdmitSigning(t.Context(), admission(ada, "ada's"))
	refused(t, err, failure.RequestExpired)
	if events := w.told(view.GetId(), 4); strings.Join(events, ",") != "accepted,amended,amended,expired" {
		t.Errorf("told %v", events)
	}
	got, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: r})
	if err != nil || got.GetRequest().GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_EXPIRED || got.GetCreated() {
		t.Errorf("the same request again after its deadline: %v, %v", got, err)
	}
	r.Reference = "another"
	_, err = w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: r})
	if f := refused(t, err, failure.RequestInvalid); pathsOf(f) != "deadline" {
		t.Errorf("refused %v", f.Fields)
	}
	_, err = w.amend(&signingv1.AmendRequest{Id: view.GetId(), Deadline: timestamppb.New(w.clock.Now(tenant).Add(time.Hour))})
	refused(t, err, failure.RequestClosed)
}

// TestDeadlineMeetsSignature: who was admitted within grace has signed, whatever the timer says meanwhile.
func TestDeadlineMeetsSignature(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Deadline = timestamppb.New(w.clock.Now(tenant).Add(time.Hour))
	view := w.create(r)
	link := view.GetSigners()[0].GetId()
	w.sent(link, view.GetId(), 1)
	w.clock.Advance(tenant, 30*time.Minute)
	w.mustRedeem(w.mint(link, 1), "ada's")
	w.clock.Advance(tenant, time.Hour-time.Minute)
	if _, err := w.links.AdmitSigning(t.Context(), admission(link, "ada's")); err != nil {
		t.Fatal(err)
	}
	w.peers.sign(link)
	w.clock.Advance(tenant, time.Hour)
	// Nothing was heard of the signature: the timer meets it at ceremony, and comes back.
	if _, err := w.JS.Publish(t.Context(), "due.token."+tenant+"."+view.GetId(), nil); err != nil {
		t.Fatal(err)
	}
	eventlogtest.Eventually(t, "the end is looked at", func() bool { return w.stated(view.GetId(), "RequestCancelBegun") == 1 })
	w.signed(link, view.GetId())
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted completed" {
		t.Errorf("told %v", events)
	}
	w.settled()
	w.fires(view.GetId())
	if w.stated(view.GetId(), "RequestExpired") != 0 {
		t.Error("expired over a signature that was made")
	}
}

// TestThreeGroups: parallel inside a group, one after the other, and the end by a cancellation between groups or a refusal inside one.
func TestThreeGroups(t *testing.T) {
	for name, end := range map[string]string{"cancelled between groups": "cancelled", "declined inside a group": "declined"} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			r := lease(reference)
			r.Signers = []*signingv1.Signer{person(adaMail, 1), person(graceMail, 1), person("bob@example.com", 2), person("cy@example.com", 2), person("di@example.com", 3)}
			view := w.create(r)
			ids := make([]string, 5)
			for i, s := range view.GetSigners() {
				ids[i] = s.GetId()
			}
			w.issued(ids[1])
			begun := w.link(ids[0]).GetIssuedAt().AsTime()
			w.clock.Advance(tenant, 3*24*time.Hour)
			w.signed(ids[1], view.GetId())
			w.told(view.GetId(), 2)
			if w.link(ids[2]) != nil {
				t.Fatal("a group began before the one before it was done")
			}
			w.signed(ids[0], view.GetId())
			w.issued(ids[2])
			w.issued(ids[3])
			if got := w.link(ids[2]); got.GetIssuedAt().AsTime().Sub(begun) < 3*24*time.Hour || got.GetExpiresAt().AsTime().Sub(got.GetIssuedAt().AsTime()) != 7*24*time.Hour {
				t.Errorf("the second group's clock runs from %s to %s", got.GetIssuedAt().AsTime(), got.GetExpiresAt().AsTime())
			}
			if end == "cancelled" {
				if _, err := w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: view.GetId()}); err != nil {
					t.Fatal(err)
				}
			} else {
				w.Publish("ceremony", key("cer_1"), view.GetId(), &ceremonyv1.CeremonyDeclined{LinkId: ids[3], ReasonId: "not_1"}, &ceremonyv1.Ceremony{})
			}
			for _, id := range []string{ids[2], ids[4]} {
				eventlogtest.Eventually(t, "the link is closed", func() bool { return w.stated(id, "LinkClosed") == 1 })
			}
			// What is heard late opens nothing any more.
			w.signed(ids[2], view.GetId())
			w.signed(ids[3], view.GetId())
			w.settled()
			if w.stated(ids[4], "LinkIssued") != 0 || w.stated(ids[0], "LinkClosed") != 0 {
				t.Error("the third group began after the end, or a signed link was closed")
			}
			if events := w.told(view.GetId(), 4); events[len(events)-1] != end {
				t.Errorf("told %v", events)
			}
		})
	}
}

// TestDeadlineByTimer: nobody asks, and the request expires on its own; one whose deadline is moved in time does not.
func TestDeadlineByTimer(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Deadline = timestamppb.New(w.clock.Now(tenant).Add(1500 * time.Millisecond))
	view := w.create(r)
	r.Reference = "saved"
	saved := w.create(r)
	w.mustAmend(&signingv1.AmendRequest{Id: saved.GetId(), Deadline: timestamppb.New(w.clock.Now(tenant).Add(time.Hour))})
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted expired" {
		t.Errorf("told %v", events)
	}
	w.settled()
	if n := w.stated(saved.GetId(), "RequestExpired"); n != 0 {
		t.Errorf("expired %d times although its deadline was moved", n)
	}
	if n := w.stated(view.GetId(), "RequestExpired"); n != 1 {
		t.Errorf("expired %d times", n)
	}
}

// TestRenewed: a link that nobody opens is replaced as often as its profile allows, each with another message, and then the sender is asked.
func TestRenewed(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Profile = "renewed"
	view := w.create(r)
	link := view.GetSigners()[0].GetId()
	var tokens []string
	for generation := uint32(1); generation <= 3; generation++ {
		eventlogtest.Eventually(t, "the next generation", func() bool { return w.link(link).GetGeneration() == generation })
		tokens = append(tokens, w.mint(link, generation))
		for range 2 {
			w.sent(link, view.GetId(), generation)
		}
	}
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted attention" {
		t.Errorf("told %v", events)
	}
	if got := w.link(link); got.GetGeneration() != 3 || !got.GetLapsed() {
		t.Errorf("the link is at generation %d, lapsed: %t", got.GetGeneration(), got.GetLapsed())
	}
	for i, want := range []string{failure.LinkSuperseded.Code, failure.LinkSuperseded.Code, failure.LinkExpired.Code} {
		if code := w.resolve(tokens[i], ""); code != want {
			t.Errorf("the link of generation %d is %q", i+1, code)
		}
	}
	got, err := w.signing.Get(as(t, tenant), &signingv1.GetRequest{Id: view.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, g := range got.GetRequest().GetSigners()[0].GetGenerations() {
		told = append(told, g.GetOrigin().String()+" "+g.GetEnd().String())
	}
	want := []string{"LINK_ORIGIN_ISSUED LINK_END_SUPERSEDED", "LINK_ORIGIN_AUTOMATIC LINK_END_SUPERSEDED", "LINK_ORIGIN_AUTOMATIC LINK_END_LAPSED"}
	if !slices.Equal(told, want) {
		t.Errorf("lineage %v", told)
	}
}

// TestAttention: the sender is asked once when a signer may have no more links, however often they try.
func TestAttention(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Profile = "flash"
	view := w.create(r)
	link := view.GetSigners()[0].GetId()
	w.sent(link, view.GetId(), 1)
	w.peers.prove(browserOf("ada's"), w.link(link).GetHolderId())
	for range 3 {
		w.clock.Advance(tenant, 2*time.Second)
		if _, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf("ada's")}); err != nil {
			t.Fatal(err)
		}
	}
	w.clock.Advance(tenant, 2*time.Second)
	for range 3 {
		_, err := w.links.Continue(t.Context(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf("ada's")})
		refused(t, err, failure.ReissueLimit)
	}
	w.told(view.GetId(), 2)
	w.settled()
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted attention" || w.outcomes(view.GetId())[1].GetPosition() != 1 {
		t.Errorf("told %v", events)
	}
}
