package token_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token"
)

// TestTurns is spec 1.1: one group after the other, everybody told twice and in a bad order, and everything happens once.
func TestTurns(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Signers = []*signingv1.Signer{person(adaMail, 2), person("bob@example.com", 1), person(graceMail, 1)}
	answer, err := w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: r})
	if err != nil {
		t.Fatal(err)
	}
	view := answer.GetRequest()
	links := []string{view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId(), view.GetSigners()[2].GetId()}
	w.issued(links[1])
	w.issued(links[2])
	if w.link(links[0]) != nil {
		t.Fatal("the second group's link was issued before its turn")
	}
	_, err = w.signing.ReissueLink(as(t, tenant), &signingv1.ReissueLinkRequest{Id: view.GetId(), Signer: "1"})
	refused(t, err, failure.LinkNotYet)
	for _, i := range []int{2, 2, 1, 2, 1} {
		w.signed(links[i], view.GetId())
	}
	w.issued(links[0])
	w.sent(links[0], view.GetId(), 1)
	w.signed(links[0], view.GetId())
	w.signed(links[0], view.GetId())
	w.signed("lnk_of_nobody", view.GetId())
	if events := w.told(view.GetId(), 4); !slices.Equal(events, []string{"accepted", "progress", "progress", "completed"}) {
		t.Errorf("told %v", events)
	}
	w.settled()
	for _, link := range links {
		if n := w.stated(link, "LinkSigned"); n != 1 || w.stated(link, "LinkIssued") != 1 {
			t.Errorf("%s was signed %d times", link, n)
		}
	}
	if events := w.told(view.GetId(), 4); len(events) != 4 {
		t.Errorf("told %v", events)
	}
	w.private("bob@example.com")
}

// TestDeclined: a refusal to sign ends the request and everybody else's links (spec 2.8).
func TestDeclined(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Signers = []*signingv1.Signer{person(adaMail, 1), person(graceMail, 1), person("bob@example.com", 2)}
	view := w.create(r)
	ada, grace, bob := view.GetSigners()[0].GetId(), view.GetSigners()[1].GetId(), view.GetSigners()[2].GetId()
	w.issued(grace)
	w.mustRedeem(w.mint(grace, 1), "grace's")
	if _, err := w.links.AdmitSigning(t.Context(), admission(grace, "grace's")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.Publish("ceremony", key("cer_1"), view.GetId(), &ceremonyv1.CeremonyDeclined{LinkId: ada, ReasonId: "not_1"}, &ceremonyv1.Ceremony{})
	}
	// Grace is just signing: hers waits, and the one whose turn never came is closed meanwhile.
	eventlogtest.Eventually(t, "bob's link is closed", func() bool { return w.stated(bob, "LinkClosed") == 1 })
	if got := w.link(grace).GetStatus(); got != tokenv1.LinkStatus_LINK_STATUS_REDEEMED {
		t.Errorf("while she signs the link is %s", got)
	}
	w.clock.Advance(tenant, 2*time.Minute)
	w.settled()
	if got := w.link(grace); got.GetStatus() != tokenv1.LinkStatus_LINK_STATUS_CLOSED || got.GetEndReason() != tokenv1.EndReason_END_REASON_DECLINED_BY_ANOTHER {
		t.Errorf("the link is %v", got)
	}
	if got := w.link(ada).GetStatus(); got != tokenv1.LinkStatus_LINK_STATUS_DECLINED {
		t.Errorf("the link is %s", got)
	}
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted declined" {
		t.Errorf("told %v", events)
	}
}

// TestRerouted is spec 7.2: to listed alternates only, once.
func TestRerouted(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	first := w.mint(link, 1)
	w.sent(link, view.GetId(), 1)
	request, err := w.directory.GetRequest(t.Context(), &tokenv1.GetRequestRequest{Tenant: tenant, RequestId: view.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	alternate := request.GetRequest().GetSeats()[0].GetAlternateIds()[0]
	routed := func(to string, generation uint32) {
		w.Publish("escalation", key("esc_1"), view.GetId(), &escalationv1.AlternateRouted{LinkId: link, Generation: generation, AlternateId: to}, &escalationv1.Escalation{})
	}
	routed("per_stranger", 1)
	w.settled()
	if w.stated(link, "LinkRerouted") != 0 {
		t.Fatal("rerouted to somebody whom the request does not list")
	}
	routed(alternate, 1)
	routed(alternate, 1)
	eventlogtest.Eventually(t, "the alternate holds it", func() bool { return w.link(link).GetHolderId() == alternate })
	w.settled()
	if n := w.stated(link, "LinkRerouted"); n != 1 || w.link(link).GetGeneration() != 2 {
		t.Errorf("rerouted %d times", n)
	}
	if code := w.resolve(first, ""); code != failure.LinkDelegated.Code {
		t.Errorf("who was replaced sees %q", code)
	}
	got, err := w.signing.Get(as(t, tenant), &signingv1.GetRequest{Id: view.GetId()})
	if s := got.GetRequest().GetSigners()[0]; err != nil || s.GetName() != graceName || !s.GetAlternate() {
		t.Errorf("shown as %v, %v", s, err)
	}
}

// TestStuck: a policy that gives up on a request waits for a signature that is being made, and then does.
func TestStuck(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	w.mustRedeem(w.mint(link, 1), "ada's")
	if _, err := w.links.AdmitSigning(t.Context(), admission(link, "ada's")); err != nil {
		t.Fatal(err)
	}
	w.Publish("escalation", key("esc_1"), view.GetId(), &escalationv1.RequestStuck{Step: 1}, &escalationv1.Escalation{})
	eventlogtest.Eventually(t, "the cancellation begins", func() bool { return w.stated(view.GetId(), "RequestCancelBegun") > 0 })
	if w.stated(view.GetId(), "RequestCancelled") != 0 {
		t.Fatal("cancelled while a signature was being made")
	}
	w.clock.Advance(tenant, 2*time.Minute)
	eventlogtest.Eventually(t, "it is cancelled", func() bool { return w.stated(view.GetId(), "RequestCancelled") == 1 })
	if events := w.told(view.GetId(), 2); strings.Join(events, " ") != "accepted cancelled" {
		t.Errorf("told %v", events)
	}
	// Of one that has ended there is nothing to give up.
	w.Publish("escalation", key("esc_1"), view.GetId(), &escalationv1.RequestStuck{Step: 2}, &escalationv1.Escalation{})
	w.Publish("escalation", key("esc_1"), "req_of_nobody", &escalationv1.RequestStuck{Step: 2}, &escalationv1.Escalation{})
	w.settled()
	if dead := w.messages("DEAD", ">"); len(dead) != 0 {
		t.Errorf("%d dead letters", len(dead))
	}
}

// TestRotatedByReminder is spec 6.4: told twice, the link is replaced once.
func TestRotatedByReminder(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	link := view.GetSigners()[0].GetId()
	due := func(rotate bool) {
		w.Publish("reminder", key("rem_1"), view.GetId(), &reminderv1.ReminderDue{LinkId: link, Generation: 1, Rotate: rotate}, &reminderv1.Plan{})
	}
	due(false)
	w.settled()
	if w.link(link).GetGeneration() != 1 {
		t.Fatal("a reminder of a link that lasts replaced it")
	}
	due(true)
	due(true)
	w.settled()
	if got := w.link(link).GetGeneration(); got != 2 {
		t.Errorf("generation %d", got)
	}
}

// TestEscalationIsTold: what the platform is to hear reaches it.
func TestEscalationIsTold(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	w.told(view.GetId(), 1)
	w.Publish("escalation", key("esc_1"), view.GetId(), &escalationv1.PlatformTold{Position: 1}, &escalationv1.Escalation{})
	w.told(view.GetId(), 2)
	if got := w.outcomes(view.GetId())[1]; got.GetEvent() != "escalated" || got.GetPosition() != 1 {
		t.Errorf("told %v", got)
	}
}

// TestList: newest first, page by page, by status; and the same again after Redis was emptied in the middle of it.
func TestList(t *testing.T) {
	w := start(t)
	var ids []string
	for i := range 7 {
		ids = append(ids, w.create(lease(fmt.Sprint(reference, i))).GetId())
	}
	slices.Reverse(ids)
	if _, err := w.signing.Cancel(as(t, tenant), &signingv1.CancelRequest{Id: ids[3]}); err != nil {
		t.Fatal(err)
	}
	w.settled()
	list := func(req *signingv1.ListRequest, between func()) (got []string) {
		t.Helper()
		for {
			page, err := w.signing.List(as(t, tenant), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.GetRequests() {
				got = append(got, r.GetId())
			}
			if page.GetNextPageToken() == "" {
				return got
			}
			req.PageToken = page.GetNextPageToken()
			between()
		}
	}
	cancelled, open := signingv1.RequestStatus_REQUEST_STATUS_CANCELLED, signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
	for name, between := range map[string]func(){"Redis stays": func() {}, "Redis is emptied": w.flush} {
		between()
		if got := list(&signingv1.ListRequest{}, between); !slices.Equal(got, ids) {
			t.Errorf("%s: listed %v, want %v", name, got, ids)
		}
		if got := list(&signingv1.ListRequest{PageSize: 3}, between); !slices.Equal(got, ids) {
			t.Errorf("%s: in pages listed %v, want %v", name, got, ids)
		}
		if got := list(&signingv1.ListRequest{Status: cancelled}, between); !slices.Equal(got, ids[3:4]) {
			t.Errorf("%s: cancelled are %v", name, got)
		}
		if got := list(&signingv1.ListRequest{Status: open, PageSize: 2}, between); !slices.Equal(got, slices.Delete(slices.Clone(ids), 3, 4)) {
			t.Errorf("%s: open are %v", name, got)
		}
	}
	// A request that is taken in after that stands on the list that was made again.
	newest := w.create(lease(reference + "newest")).GetId()
	w.settled()
	if got := list(&signingv1.ListRequest{}, func() {}); len(got) != 8 || got[0] != newest {
		t.Errorf("listed %v", got)
	}
	_, err := w.signing.List(as(t, tenant), &signingv1.ListRequest{PageToken: "?"})
	refused(t, err, failure.RequestInvalid)
}

// TestForeignTenant: what another tenant has is as unknown as what never was, by every way in.
func TestForeignTenant(t *testing.T) {
	w := start(t)
	view := w.create(lease(reference))
	w.mustRedeem(w.mint(view.GetSigners()[0].GetId(), 1), "ada's")
	w.settled()
	before := len(w.Facts(token.Name, "fact.token.>"))
	for _, id := range []string{view.GetId(), "req_never"} {
		ways := map[string]func() error{
			"get": func() error {
				_, err := w.signing.Get(as(t, "rival"), &signingv1.GetRequest{Id: id})
				return err
			},
			"events": func() error {
				_, err := w.signing.ListEvents(as(t, "rival"), &signingv1.ListEventsRequest{Id: id})
				return err
			},
			"cancel": func() error {
				_, err := w.signing.Cancel(as(t, "rival"), &signingv1.CancelRequest{Id: id})
				return err
			},
			"reissue": func() error {
				_, err := w.signing.ReissueLink(as(t, "rival"), &signingv1.ReissueLinkRequest{Id: id, Signer: "1"})
				return err
			},
			"revoke": func() error {
				_, err := w.signing.RevokeLink(as(t, "rival"), &signingv1.RevokeLinkRequest{Id: id, Signer: "1"})
				return err
			},
			"issue": func() error {
				_, err := w.signing.IssueLink(as(t, "rival"), &signingv1.IssueLinkRequest{Id: id, Signer: "1"})
				return err
			},
			"watch": func() error {
				stream, err := w.signing.Watch(as(t, "rival"), &signingv1.WatchRequest{Id: id})
				if err != nil {
					return err
				}
				_, err = stream.Recv()
				return err
			},
		}
		for name, way := range ways {
			t.Run(name+" "+id[:9], func(t *testing.T) {
				if got := refused(t, way(), failure.RequestUnknown); len(got.Fields) != 0 || got.RetryAfter != 0 {
					t.Errorf("tells %v", got)
				}
			})
		}
	}
	list, err := w.signing.List(as(t, "rival"), &signingv1.ListRequest{})
	if err != nil || len(list.GetRequests()) != 0 {
		t.Errorf("listed %v, %v", list.GetRequests(), err)
	}
	// The same reference of another tenant is another request.
	answer, err := w.signing.Create(as(t, "rival"), &signingv1.CreateRequest{Request: lease(reference)})
	if err != nil || !answer.GetCreated() || answer.GetRequest().GetId() == view.GetId() {
		t.Errorf("created %v, %v", answer, err)
	}
	for _, f := range w.Facts(token.Name, "fact.token.>")[before:] {
		if !strings.HasPrefix(f.Subject, "fact.token.rival.") {
			t.Errorf("a stranger left %s on %s", f.Name(), f.Subject)
		}
	}
	events, err := w.signing.ListEvents(as(t, tenant), &signingv1.ListEventsRequest{Id: view.GetId()})
	if err != nil || len(events.GetEvents()) != 1 || events.GetEvents()[0].GetLeafHash() != "ab" {
		t.Errorf("the trail is %v, %v", events.GetEvents(), err)
	}
}

// TestWatch streams every outcome from the first, resumes after any, and ends with the request.
func TestWatch(t *testing.T) {
	w := start(t)
	r := lease(reference)
	r.Signers = []*signingv1.Signer{person(adaMail, 1), person(graceMail, 1)}
	view := w.create(r)
	stream, err := w.signing.Watch(as(t, tenant), &signingv1.WatchRequest{Id: view.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	w.issued(view.GetSigners()[1].GetId())
	w.signed(view.GetSigners()[0].GetId(), view.GetId())
	w.signed(view.GetSigners()[1].GetId(), view.GetId())
	var told []string
	var cursor string
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		if told = append(told, m.GetOutcome().GetEvent()); len(told) == 1 {
			cursor = m.GetCursor()
		}
	}
	if strings.Join(told, " ") != "accepted progress completed" {
		t.Errorf("watched %v", told)
	}
	if stream, err = w.signing.Watch(as(t, tenant), &signingv1.WatchRequest{Id: view.GetId(), After: cursor}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetOutcome().GetEvent() != "progress" {
		t.Errorf("resumed with %v, %v", m, err)
	}
	// A cursor is good where it was given, and nowhere else.
	other := w.create(lease("other-1"))
	for name, req := range map[string]*signingv1.WatchRequest{
		"another request's": {Id: other.GetId(), After: cursor}, "made up": {Id: view.GetId(), After: "12"}, "of links": {Id: view.GetId(), After: w.service.CursorAt(tenant, 1)},
	} {
		stream, err := w.signing.Watch(as(t, tenant), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if f := refused(t, err, failure.RequestInvalid); len(f.Fields) != 1 || f.Fields[0].Path != "after" {
			t.Errorf("a cursor that is %s: %v", name, f.Fields)
		}
	}
}
