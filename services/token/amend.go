package token

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// metadataLimit is how many pairs a request may have.
const metadataLimit = 64

// amendment is what a platform's call changes, looked at as a whole before anything is written.
type amendment struct {
	request *tokenv1.Request
	change  rules.Amend
	words   *tokenv1.RequestWords // nil where they stay
	people  []amended
	reason  string
}

// amended is what changes about one signer.
type amended struct {
	seat   *tokenv1.Seat
	link   *tokenv1.Link // not issued while the signer waits
	path   string
	person *signingv1.Person // as they are from now on
	id     string            // in the vault; the same where only the address stayed
	kept   string            // who holds the position before it
}

// moves tells whether somebody whom a message went to gets another address.
func (a amended) moves() bool { return a.link.GetGeneration() > 0 && a.id != a.kept }

// amend changes a request whose links are out (spec 1.3). Everything is checked first. Then the request's part is one fact, and each
// changed address one fact of its link. A crash in between leaves some of it done; the same call again does the rest.
func (s *Service) amend(ctx context.Context, tenant string, req *signingv1.AmendRequest, by eventlog.By) (*signingv1.RequestView, error) {
	by.RequestID = req.GetId()
	if err := s.validateAmendment(tenant, req); err != nil {
		return nil, err
	}
	r, err := s.find(ctx, tenant, req.GetId())
	if err != nil {
		return nil, err
	}
	a, err := s.plan(ctx, r, req)
	if err != nil {
		return nil, err
	}
	if err := s.mayAmend(ctx, a); err != nil {
		return nil, err
	}
	if err := s.keepAmended(ctx, a); err != nil {
		return nil, err
	}
	res, err := s.requests.Do(ctx, key(tenant, r.GetId()), a.change, by)
	if err != nil {
		return nil, err
	}
	if err := s.moveDeadlines(ctx, res.State, by); err != nil {
		return nil, err
	}
	for _, one := range a.people {
		if !one.moves() {
			continue
		}
		readdress := rules.Readdress{HolderID: one.id, ReasonID: a.change.ReasonID}
		if _, err := s.turn(ctx, key(tenant, one.seat.GetLinkId()), readdress, by); err != nil {
			return nil, err
		}
	}
	return s.view(ctx, res.State)
}

// change amends a request: the one way for NATS, gRPC and REST.
func (s *Service) change(ctx context.Context, tenant string, req *signingv1.AmendRequest, by eventlog.By) (*signingv1.AmendResponse, error) {
	ctx = telemetry.WithRequest(ctx, req.GetId(), tenant)
	c := call{signingv1.SigningRequestService_Amend_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.AmendResponse, error) {
		view, err := s.amend(ctx, tenant, req, by)
		return &signingv1.AmendResponse{Request: view}, err
	})
}

// validateAmendment names every field that is wrong by itself.
func (s *Service) validateAmendment(tenant string, req *signingv1.AmendRequest) error {
	v := &problems{}
	if err := v.contract(s.contract, req); err != nil {
		return err
	}
	if problem := rules.DeadlineProblem(req.GetDeadline(), s.h.Clock.Now(tenant)); problem != "" {
		v.add("deadline", problem)
	}
	v.words("reason", req.GetReason())
	for key, value := range req.GetMetadata() {
		v.words("metadata", key)
		v.words(fmt.Sprintf("metadata[%q]", printable(key)), value)
	}
	for i, c := range req.GetSigners() {
		if c.Name == nil && c.Email == nil && c.Locale == nil && c.TimeZone == nil && c.Group == nil {
			v.add(fmt.Sprintf("signers[%d]", i), "names nothing to change")
		}
	}
	if req.GetDeadline() == nil && len(req.GetSigners()) == 0 && len(req.GetMetadata()) == 0 {
		v.add("$", "names nothing to change")
	}
	return v.refusal()
}

// plan works out what a call changes about a request, and names every field that is wrong for it.
func (s *Service) plan(ctx context.Context, r *tokenv1.Request, req *signingv1.AmendRequest) (*amendment, error) {
	a := &amendment{request: r, reason: req.GetReason(), change: rules.Amend{Deadline: req.GetDeadline()}}
	if a.reason != "" {
		a.change.ReasonID = s.noteID(r.GetId(), "amend", a.reason)
	}
	v := &problems{}
	seen := map[string]bool{}
	for i, c := range req.GetSigners() {
		path := fmt.Sprintf("signers[%d]", i)
		seat, err := findSeat(r, c.GetSigner())
		if err != nil || seen[seat.GetLinkId()] {
			v.add(path+".signer", "is no other signer of this request")
			continue
		}
		seen[seat.GetLinkId()] = true
		one, err := s.planSigner(ctx, r, seat, c, path, v)
		if err != nil {
			return nil, err
		}
		change := rules.SeatChange{LinkID: seat.GetLinkId(), Path: path, Group: c.GetGroup()}
		if one != nil {
			a.people = append(a.people, *one)
			if one.link.GetGeneration() == 0 {
				change.PersonID = one.id
			}
		}
		a.change.Seats = append(a.change.Seats, change)
	}
	if err := s.planWords(ctx, a, req.GetMetadata(), v); err != nil {
		return nil, err
	}
	return a, v.refusal()
}

// planSigner works out who a signer is from now on; nil when they are who they are.
func (s *Service) planSigner(ctx context.Context, r *tokenv1.Request, seat *tokenv1.Seat, c *signingv1.SignerAmendment, path string, v *problems) (*amended, error) {
	link, _, err := s.links.Load(ctx, key(r.GetTenant(), seat.GetLinkId()))
	if err != nil {
		return nil, err
	}
	holder := seat.GetPersonId()
	if link.GetHolderId() != "" {
		holder = link.GetHolderId()
	}
	before, err := s.person(ctx, of(r.GetTenant(), seat.GetLinkId(), holder))
	if err != nil {
		return nil, unknown(err, failure.SignerUnknown)
	}
	after := proto.CloneOf(before)
	for to, from := range map[*string]*string{&after.Name: c.Name, &after.Email: c.Email, &after.Locale: c.Locale, &after.TimeZone: c.TimeZone} {
		if from != nil {
			*to = *from
		}
	}
	if proto.Equal(before, after) && (link.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_SIGNED || holder != seat.GetPersonId()) {
		return nil, nil //nolint:nilnil // nothing changes
	}
	// Of one who is the same, the request may still lack the commitments: the call before this one died in between.
	v.person(path, after)
	one := &amended{seat: seat, link: link, path: path, person: after, id: holder, kept: holder}
	if after.GetEmail() == before.GetEmail() {
		return one, nil
	}
	for _, id := range seat.GetAlternateIds() {
		alternate, err := s.person(ctx, of(r.GetTenant(), seat.GetLinkId(), id))
		if err = ignore[*failure.Error](err); err != nil {
			return nil, err
		}
		if id != holder && strings.EqualFold(alternate.GetEmail(), after.GetEmail()) {
			v.add(path+".email", "is the address of an alternate: an alternate is somebody else")
		}
	}
	// A person of their own: what was proved, or sent, before is no good for them. The same change again is the same person.
	one.id = eventlog.DeriveID(s.h.Keys, "per", r.GetId(), fmt.Sprint(seat.GetPosition()), "amended", fmt.Sprint(link.GetGeneration()+1), holder,
		after.GetName(), after.GetEmail(), after.GetLocale(), after.GetTimeZone())
	return one, nil
}

// planWords works out a request's metadata from now on.
func (s *Service) planWords(ctx context.Context, a *amendment, changes map[string]string, v *problems) error {
	if len(changes) == 0 {
		return nil
	}
	before, err := s.words(ctx, a.request)
	if err != nil {
		return unknown(err, failure.RequestErased)
	}
	after := proto.CloneOf(before)
	if after.GetMetadata() == nil {
		after.Metadata = map[string]string{}
	}
	maps.Copy(after.GetMetadata(), changes)
	maps.DeleteFunc(after.GetMetadata(), func(_, value string) bool { return value == "" })
	if len(after.GetMetadata()) > metadataLimit {
		v.add("metadata", fmt.Sprintf("would have more than %d pairs", metadataLimit))
	}
	if proto.Equal(before, after) {
		return nil
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(after)
	if err != nil {
		return fmt.Errorf("token: amend: %w", err)
	}
	a.words, a.change.FromPrivateID = after, a.request.GetPrivateId()
	a.change.PrivateID = eventlog.DeriveID(s.h.Keys, "wrd", a.request.GetId(), a.change.FromPrivateID, string(s.h.Keys.MAC("cs.field.v1", []byte("words"), body)))
	return nil
}

// mayAmend refuses what comes too late, or while a signature is being made, before anything is written.
func (s *Service) mayAmend(ctx context.Context, a *amendment) error {
	now := s.h.Clock.Now(a.request.GetTenant())
	if _, err := a.change.Decide(a.request, now); err != nil {
		return err
	}
	var late []failure.Field
	for _, one := range a.people {
		if one.link.GetGeneration() == 0 {
			continue
		}
		switch one.link.GetStatus() {
		case tokenv1.LinkStatus_LINK_STATUS_SIGNED:
			late = append(late, failure.Field{Path: one.path, Problem: "has signed"})
			continue
		case tokenv1.LinkStatus_LINK_STATUS_DECLINED, tokenv1.LinkStatus_LINK_STATUS_CLOSED:
			return failure.RequestClosed
		default:
		}
		if err := rules.MayCancel(one.seat, one.link, now); err != nil {
			return err // nor may somebody's name change while they sign with it
		}
		link := proto.CloneOf(one.link)
		if a.change.Deadline != nil {
			link.Deadline = a.change.Deadline // as it is by the time the link is rotated
		}
		if _, err := (rules.Readdress{HolderID: one.id}).Decide(link, now); err != nil {
			return err
		}
		if err := s.settled(ctx, one.link); err != nil {
			return err
		}
	}
	if len(late) > 0 {
		return failure.AmendTooLate.WithFields(late...)
	}
	return nil
}

// keepAmended puts what is private into the vault, before any fact speaks of it.
func (s *Service) keepAmended(ctx context.Context, a *amendment) error {
	owners := []string{a.request.GetId()}
	for _, one := range a.people {
		if one.moves() {
			owners = append(owners, one.seat.GetLinkId()) // whose lineage tells it
		}
	}
	if _, err := s.reason(ctx, a.request, "amend", a.reason, owners...); err != nil {
		return err
	}
	if a.words != nil {
		if err := s.store(ctx, wordsOf(a.request, a.change.PrivateID), a.words); err != nil {
			return fmt.Errorf("token: keep the words of a request: %w", err)
		}
	}
	for _, one := range a.people {
		put := s.putPerson
		if one.id == one.kept {
			put = s.changePerson
		}
		commitments, err := put(ctx, of(a.request.GetTenant(), one.seat.GetLinkId(), one.id), "signer", one.person)
		if err != nil {
			return err
		}
		for i := range a.change.Seats {
			if c := &a.change.Seats[i]; c.LinkID == one.seat.GetLinkId() && !one.moves() && one.kept == one.seat.GetPersonId() {
				c.Commitments = commitments
			}
		}
	}
	return nil
}

// moveDeadlines tells every link that is out the deadline of its request.
func (s *Service) moveDeadlines(ctx context.Context, r *tokenv1.Request, by eventlog.By) error {
	if r.GetDeadline() == nil {
		return nil
	}
	by.CommandID = "" // whoever tells them, it is the newest amendment that counts
	for _, seat := range r.GetSeats() {
		if seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_OPEN {
			continue
		}
		move := rules.MoveDeadline{Number: r.GetAmendments(), Deadline: r.GetDeadline()}
		if _, err := s.links.Do(ctx, key(r.GetTenant(), seat.GetLinkId()), move, by); err != nil {
			return err
		}
	}
	return nil
}

// onAmended does what follows from an amendment, should whoever asked for it have died: the links hear the deadline, and a group
// that somebody was moved into gets its links.
func (s *Service) onAmended(ctx context.Context, e eventlog.Event, _ *tokenv1.RequestAmended) error {
	r, sequence, err := s.requests.Load(ctx, e.Key)
	if err != nil {
		return err
	}
	if !closed(r.GetStatus()) {
		if err := s.issueGroup(ctx, e, r.GetGroup()); err != nil {
			return err
		}
		if err := s.moveDeadlines(ctx, r, e.By(Name, "deadline")); err != nil {
			return err
		}
		if due := rules.RequestDeadline(r); !due.IsZero() {
			if err := s.timers.Arm(ctx, e.Key, due, sequence); err != nil {
				return err
			}
		}
	}
	return s.outcome(ctx, e, "amended", signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, 0)
}

// onReissued tells the request who signs from now on, where an address was changed.
func (s *Service) onReissued(ctx context.Context, e eventlog.Event, f *tokenv1.LinkReissued) error {
	if f.GetReason() != tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED {
		return nil
	}
	commitments, err := s.commitments(ctx, of(e.Key.Tenant, e.Key.ID, f.GetHolderId()), "signer")
	if err = ignore[*failure.Error](err); err != nil {
		return err
	}
	change := rules.Amend{ReasonID: f.GetReasonId(), Seats: []rules.SeatChange{{
		LinkID: e.Key.ID, PersonID: f.GetHolderId(), Generation: f.GetGeneration(), Commitments: commitments,
	}}}
	_, err = s.requests.Do(ctx, key(e.Key.Tenant, e.Record.GetRequestId()), change, e.By(Name, "readdress"))
	if refusal := failure.From(err); refusal != nil && !refusal.Retryable {
		return nil // the request has ended meanwhile
	}
	return err
}
