package proof

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
	"countersign.dev/services/token/seatmodel"
)

// move is one kind of step on some link; more weight makes it more frequent.
type move struct {
	name   string
	weight int
	do     func(s *stroll, link string, seat *seatmodel.Seat)
}

var moves = []move{
	{"mint", 14, (*stroll).mint},
	{"redeem", 18, (*stroll).redeem},
	{"look at the page", 8, (*stroll).resolve},
	{"ask for the session", 5, (*stroll).session},
	{"go on, verified", 8, (*stroll).resume},
	{"sign", 10, (*stroll).sign},
	{"decline", 1, (*stroll).decline},
	{"the message is out", 6, (*stroll).out},
	{"reissue", 4, (*stroll).reissue},
	{"revoke", 2, (*stroll).revoke},
	{"route to the alternate", 2, (*stroll).reroute},
	{"a reminder rotates", 1, (*stroll).remind},
	{"another address", 1, (*stroll).readdress},
	{"another deadline", 2, (*stroll).deadline},
	{"cancel", 1, (*stroll).cancel},
	{"a timer fires", 6, (*stroll).fire},
	{"time passes", 12, (*stroll).pass},
	{"something is told again", 4, (*stroll).again},
	{"something is heard late", 3, (*stroll).late},
	{"Redis is emptied", 3, func(s *stroll, _ string, _ *seatmodel.Seat) {
		if err := s.rdb.FlushAll(s.t.Context()).Err(); err != nil {
			s.Fatal(err)
		}
	}},
}

// answers compares an answer with what the rules say of all that was stated before. One that never came says nothing.
func (s *stroll) answers(what string, err error, want error) (well bool) {
	s.t.Helper()
	got := failure.From(err)
	if err != nil && (got == nil || got.Code == failure.Unavailable.Code) {
		return false
	}
	code, wanted := "", ""
	if got != nil {
		code = got.Code
	}
	if f := failure.From(want); f != nil {
		wanted = f.Code
	}
	if calm := s.calm; code != wanted && calm {
		s.hear()
		if !s.turned || what == "reissue" && code != failure.LinkBusy.Code {
			s.Fatalf("%s: %q, and the rules say %q", what, code, wanted)
		}
	}
	return err == nil
}

func (s *stroll) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 8*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *stroll) someBrowser() uint8 { return uint8(1 + s.random.IntN(3)) }

// someToken returns one of a link's tokens, mostly the newest; "" when there is none.
func (s *stroll) someToken(link string) string {
	all := s.tokens[link]
	if len(all) == 0 {
		return ""
	}
	if s.random.IntN(3) > 0 {
		return all[len(all)-1]
	}
	return all[s.random.IntN(len(all))]
}

func (s *stroll) mint(link string, seat *seatmodel.Seat) {
	generation := seat.Generation - min(seat.Generation-1, uint32(s.random.IntN(5)/4))
	_, want := rules.Mint{Generation: generation, Hash: []byte("any"), DeliveryID: "dlv"}.Decide(seat.Link, s.now())
	answer, err := s.links.Mint(s.ctx(), &tokenv1.MintRequest{Tenant: tenant, LinkId: link, Generation: generation, DeliveryId: "dlv_1"})
	if s.answers("mint", err, want) {
		s.tokens[link] = append(s.tokens[link], answer.GetToken())
	}
}

func (s *stroll) redeem(link string, seat *seatmodel.Seat) {
	text, browser := s.someToken(link), s.someBrowser()
	if text == "" {
		s.mint(link, seat)
		return
	}
	want := rules.CheckToken(seat.Link, s.hash(text), s.browser(browser), s.now())
	_, err := s.links.Redeem(s.ctx(), &tokenv1.RedeemRequest{Token: text, Browser: browserOf(browser)})
	s.answers("redeem", err, want)
}

func (s *stroll) resolve(link string, seat *seatmodel.Seat) {
	text, browser := s.someToken(link), s.someBrowser()
	if text == "" {
		return
	}
	want := rules.CheckToken(seat.Link, s.hash(text), s.browser(browser), s.now())
	answer, err := s.links.Resolve(s.ctx(), &tokenv1.ResolveRequest{Token: text, Browser: browserOf(browser)})
	if err == nil && answer.GetFailureCode() != "" {
		err = failure.Lookup(answer.GetFailureCode())
	}
	s.answers("page", err, want)
}

func (s *stroll) session(link string, seat *seatmodel.Seat) {
	browser := s.someBrowser()
	want := rules.CheckSession(seat.Link, s.browser(browser), s.now())
	answer, err := s.links.GetSession(s.ctx(), &tokenv1.GetSessionRequest{Tenant: tenant, LinkId: link, Browser: browserOf(browser), Decisive: s.random.IntN(2) == 0})
	if err == nil && answer.GetFailureCode() != "" {
		err = failure.Lookup(answer.GetFailureCode())
	}
	s.answers("session", err, want)
}

// settled is the refusal of a link of which ceremony has stated a signature that was not heard yet.
func (s *stroll) settled(link string, seat *seatmodel.Seat, want error) error {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	if s.peers.signed[link] && rules.Unsettled(seat.Link) && !s.now().Before(seat.Link.GetAdmission().GetUntil().AsTime()) {
		return failure.LinkBusy
	}
	return want
}

func (s *stroll) resume(link string, seat *seatmodel.Seat) {
	browser := s.someBrowser()
	command := rules.Continue{Browser: s.browser(browser), SessionID: "ses", VerificationID: "evd", HolderID: seat.Link.GetHolderId()}
	_, want := command.Decide(seat.Link, s.now())
	_, err := s.links.Continue(s.ctx(), &tokenv1.ContinueRequest{Tenant: tenant, LinkId: link, Browser: browserOf(browser)})
	s.answers("continue", err, s.settled(link, seat, want))
}

// sign has a signature admitted, and mostly made: it is heard at once, twice, or late.
func (s *stroll) sign(link string, seat *seatmodel.Seat) {
	browser := s.someBrowser()
	for b := uint8(1); b <= 3 && s.random.IntN(3) > 0; b++ {
		if rules.HeldBy(seat.Link, s.browser(b)) {
			browser = b
		}
	}
	_, want := rules.Admit{Browser: s.browser(browser), AdmissionID: fmt.Sprint("adm_", browser)}.Decide(seat.Link, s.now())
	if want == nil {
		want = rules.MayAdmit(s.state, s.now())
	}
	_, err := s.links.AdmitSigning(s.ctx(), &tokenv1.AdmitSigningRequest{Tenant: tenant, LinkId: link, Browser: browserOf(browser), AdmissionId: fmt.Sprint("adm_", browser)})
	if !s.answers("admit", err, want) || s.random.IntN(3) == 0 {
		return
	}
	s.peers.sign(link)
	f := foreign{"ceremony", "cer_" + link, &ceremonyv1.CeremonySigned{LinkId: link, SessionId: "ses_1"}, &ceremonyv1.Ceremony{}}
	if s.random.IntN(3) == 0 {
		s.kept = append(s.kept, f)
		return
	}
	for range 1 + s.random.IntN(2) {
		s.tell(f)
	}
}

func (s *stroll) decline(link string, seat *seatmodel.Seat) {
	s.peers.mu.Lock()
	signed := s.peers.signed[link]
	s.peers.mu.Unlock()
	if !signed && seat.Browser != "" && seat.Live() {
		s.tell(foreign{"ceremony", "cer_" + link, &ceremonyv1.CeremonyDeclined{LinkId: link}, &ceremonyv1.Ceremony{}})
	}
}

func (s *stroll) out(link string, seat *seatmodel.Seat) {
	f := foreign{"delivery", "dlv_" + link, &deliveryv1.AttemptAccepted{Attempt: 1, Kind: deliveryv1.Kind_KIND_LINK, LinkId: link, Generation: seat.Generation}, &deliveryv1.Delivery{}}
	if s.random.IntN(4) == 0 {
		s.kept = append(s.kept, f)
		return
	}
	s.tell(f)
}

// reissue rotates by the platform; a call that is repeated with its key rotates once.
func (s *stroll) reissue(link string, seat *seatmodel.Seat) {
	_, want := rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}.Decide(seat.Link, s.now())
	call := &signingv1.ReissueLinkRequest{Id: s.request, Signer: link, IdempotencyKey: fmt.Sprint("call ", s.calls)}
	generation := seat.Generation
	s.calls++
	_, err := s.platform.ReissueLink(platformOf(s.ctx()), call)
	if !s.answers("reissue", err, s.settled(link, seat, want)) {
		return
	}
	if _, err := s.platform.ReissueLink(platformOf(s.ctx()), call); err != nil && failure.From(err) != nil && failure.From(err).Code != failure.Unavailable.Code {
		s.Fatalf("the same call again: %v", err)
	}
	s.hear()
	if s.calm && seat.Generation != generation+1 && seat.Link.GetProfile().GetName() != "renewed" {
		s.Fatalf("reissued once, and generation %d became %d", generation, seat.Generation)
	}
}

func (s *stroll) revoke(link string, seat *seatmodel.Seat) {
	_, want := rules.Revoke{}.Decide(seat.Link, s.now())
	_, err := s.platform.RevokeLink(platformOf(s.ctx()), &signingv1.RevokeLinkRequest{Id: s.request, Signer: link})
	s.answers("revoke", err, s.settled(link, seat, want))
}

func (s *stroll) reroute(link string, seat *seatmodel.Seat) {
	ids := rules.SeatOf(s.state, link).GetAlternateIds()
	s.tell(foreign{"escalation", "esc_" + link, &escalationv1.AlternateRouted{
		Step: 1, LinkId: link, Generation: seat.Generation, AlternateId: ids[s.random.IntN(len(ids))],
	}, &escalationv1.Escalation{}})
}

func (s *stroll) remind(link string, seat *seatmodel.Seat) {
	s.tell(foreign{"reminder", "rem_" + link, &reminderv1.ReminderDue{LinkId: link, Generation: seat.Generation, Rotate: true}, &reminderv1.Plan{}})
}

// amend is judged by what it states: its refusals are many.
func (s *stroll) amend(req *signingv1.AmendRequest) {
	req.Id = s.request
	_, _ = s.platform.Amend(platformOf(s.ctx()), req)
}

func (s *stroll) readdress(link string, _ *seatmodel.Seat) {
	s.amend(&signingv1.AmendRequest{Signers: []*signingv1.SignerAmendment{{Signer: link, Email: proto.String(fmt.Sprintf("new%d@example.com", s.random.IntN(100)))}}})
}

func (s *stroll) deadline(string, *seatmodel.Seat) {
	s.amend(&signingv1.AmendRequest{Deadline: timestamppb.New(s.now().Add(time.Minute + time.Duration(s.random.Int64N(int64(6*time.Hour)))))})
}

func (s *stroll) cancel(string, *seatmodel.Seat) {
	if s.random.IntN(3) == 0 {
		_, _ = s.platform.Cancel(platformOf(s.ctx()), &signingv1.CancelRequest{Id: s.request, Reason: "not needed"})
	}
}

// fire has the timer of a link or of the request fire, due or not.
func (s *stroll) fire(link string, _ *seatmodel.Seat) {
	id := link
	if s.random.IntN(3) == 0 {
		id = s.request
	}
	_ = s.publish("due.token."+tenant+"."+id, nil) // where the record is away, no timer fires either
}

// pass moves the clock: a little, by hours, or to an instant at which something ends, and just beside it.
func (s *stroll) pass(_ string, seat *seatmodel.Seat) {
	by := time.Duration(1 + s.random.Int64N(int64(2*time.Minute)))
	switch s.random.IntN(6) {
	case 0:
		by *= 60
	case 1, 2, 3:
		ends := []time.Time{seat.Expires, seat.GraceEnd(), rules.SessionEnd(seat.Link), seat.HeldUntil, seat.Deadline, s.state.GetCancelBegunUntil().AsTime()}
		if to := ends[s.random.IntN(len(ends))].Add(time.Duration(s.random.IntN(3)-1) * time.Millisecond); to.After(s.now()) && to.Before(s.now().Add(5*time.Hour)) {
			by = to.Sub(s.now())
		}
	}
	s.clock.AdvanceTenant(tenant, by)
}

// publish puts a message into the record. After an error it may be there all the same.
func (s *stroll) publish(subject string, body []byte) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
	defer cancel()
	_, err := s.record.Publish(ctx, subject, body)
	return err
}

// tell states a fact of another service.
func (s *stroll) tell(f foreign) {
	body, err := record(s.request, f.fact, f.state)
	if err != nil {
		s.Fatal(err)
	}
	if err := s.publish(eventlog.FactSubject(f.service, eventlog.Key{Tenant: tenant, ID: f.id}), body); err != nil {
		s.kept = append(s.kept, f) // the record was away: the service that states it tries again
		return
	}
	s.sent = append(s.sent, f)
}

func (s *stroll) again(string, *seatmodel.Seat) {
	if len(s.sent) > 0 {
		s.tell(s.sent[s.random.IntN(len(s.sent))])
	}
}

func (s *stroll) late(string, *seatmodel.Seat) {
	if len(s.kept) > 0 {
		i := s.random.IntN(len(s.kept))
		f := s.kept[i]
		s.kept = slices.Delete(s.kept, i, i+1)
		s.tell(f)
	}
}
