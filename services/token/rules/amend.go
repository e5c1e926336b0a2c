package rules

import (
	"bytes"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// DeadlineWithin is how far ahead a deadline may be.
const DeadlineWithin = 5 * 366 * 24 * time.Hour

// DeadlineProblem says what is wrong with a deadline that is asked for at now; "" when nothing is.
func DeadlineProblem(deadline *timestamppb.Timestamp, now time.Time) string {
	switch {
	case deadline == nil:
		return ""
	case !now.Before(deadline.AsTime()):
		return "is not in the future"
	case deadline.AsTime().After(now.Add(DeadlineWithin)):
		return "is more than five years ahead"
	}
	return ""
}

// Amend changes a request that goes on. What is empty stays as it is.
type Amend struct {
	Deadline *timestamppb.Timestamp
	Seats    []SeatChange
	// PrivateID names the words that are to take the place of those under FromPrivateID.
	PrivateID, FromPrivateID string
	ReasonID                 string
}

// SeatChange is what is to change about one seat.
type SeatChange struct {
	LinkID string
	// Path is where the platform named the seat, for refusals.
	Path  string
	Group uint32 // 0: as it is
	// PersonID is who signs from now on; "": who it is.
	PersonID string
	// Generation is the one of the link that was made for that person: the link has decided already. 0: nobody was asked yet.
	Generation  uint32
	Commitments map[string][]byte // nil: as they are
}

// Decide states what differs; nothing when all is so already. Everything that is refused is named at once.
func (c Amend) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	switch {
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED:
		return nil, failure.RequestUnknown
	case closed(r):
		return nil, failure.RequestClosed
	case c.PrivateID != "" && c.PrivateID != r.GetPrivateId() && c.FromPrivateID != r.GetPrivateId():
		return nil, failure.Unavailable // somebody else amended in between: look again
	}
	amended := &tokenv1.RequestAmended{Number: r.GetAmendments() + 1, At: timestamppb.New(now), ReasonId: c.ReasonID}
	if c.Deadline != nil && !proto.Equal(c.Deadline, r.GetDeadline()) {
		if problem := DeadlineProblem(c.Deadline, now); problem != "" {
			return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "deadline", Problem: problem})
		}
		amended.Deadline = c.Deadline
	}
	if c.PrivateID != r.GetPrivateId() {
		amended.PrivateId = c.PrivateID
	}
	var refused []failure.Field
	for _, change := range c.Seats {
		seat := SeatOf(r, change.LinkID)
		if seat == nil {
			return nil, failure.SignerUnknown
		}
		refused = append(refused, change.refused(r, seat)...)
		if s := change.of(seat); s != nil {
			amended.Seats = append(amended.Seats, s)
		}
	}
	if len(refused) > 0 {
		return nil, failure.AmendTooLate.WithFields(refused...)
	}
	if amended.GetDeadline() == nil && amended.GetPrivateId() == "" && len(amended.GetSeats()) == 0 {
		return nil, nil
	}
	return amended, nil
}

// of returns what differs of a seat; nil when nothing does.
func (c SeatChange) of(seat *tokenv1.Seat) *tokenv1.SeatAmended {
	s := &tokenv1.SeatAmended{LinkId: seat.GetLinkId(), Position: seat.GetPosition()}
	if c.Group != seat.GetGroup() {
		s.Group = c.Group
	}
	if c.Generation > 0 && c.Generation <= seat.GetPersonGeneration() {
		return nil // heard late: somebody newer signs
	}
	if c.PersonID != "" && c.PersonID != seat.GetPersonId() {
		s.PersonId, s.Generation = c.PersonID, c.Generation
	}
	if c.Commitments != nil && !maps.EqualFunc(c.Commitments, seat.GetCommitments(), bytes.Equal) {
		s.Commitments = c.Commitments
	}
	if s.GetGroup() == 0 && s.GetPersonId() == "" && s.GetCommitments() == nil {
		return nil
	}
	return s
}

// refused names what comes too late for a seat.
func (c SeatChange) refused(r *tokenv1.Request, seat *tokenv1.Seat) []failure.Field {
	waiting := seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_WAITING
	switch {
	case c.Generation > 0, c.of(seat) == nil:
		return nil
	case seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED:
		return []failure.Field{{Path: c.Path, Problem: "has signed"}}
	case c.Group != 0 && c.Group != seat.GetGroup() && !waiting:
		return []failure.Field{{Path: c.Path + ".group", Problem: "is of a signer who has been asked already; only who still waits changes places"}}
	case c.Group != 0 && c.Group < r.GetGroup():
		return []failure.Field{{Path: c.Path + ".group", Problem: "is one whose turn is over"}}
	case c.PersonID != "" && c.PersonID != seat.GetPersonId() && !waiting:
		return []failure.Field{{Path: c.Path, Problem: "was asked while this was decided; send it again"}}
	}
	return nil
}

// amend changes a request, and opens the seats that came into the group whose turn it is.
func amend(r *tokenv1.Request, f *tokenv1.RequestAmended) {
	r.Amendments = f.GetNumber()
	if f.GetDeadline() != nil {
		r.Deadline = f.GetDeadline()
	}
	if f.GetPrivateId() != "" {
		r.PrivateId = f.GetPrivateId()
	}
	for _, s := range f.GetSeats() {
		seat := SeatOf(r, s.GetLinkId())
		if s.GetGroup() != 0 {
			seat.Group = s.GetGroup()
		}
		if s.GetPersonId() != "" {
			seat.PersonId, seat.PersonGeneration = s.GetPersonId(), s.GetGeneration()
		}
		if s.GetCommitments() != nil {
			seat.Commitments = s.GetCommitments()
		}
	}
	openGroup(r, r.GetGroup())
}

// RequestDeadline is when a request's expiry falls due; the zero time when nothing waits.
func RequestDeadline(r *tokenv1.Request) time.Time {
	if closed(r) || r.GetDeadline() == nil {
		return time.Time{}
	}
	return r.GetDeadline().AsTime()
}

// Expire ends a request whose deadline passed before everybody had signed.
type Expire struct{}

// Decide expires once, when it is due, and only while BeginCancel keeps signatures out: whoever began in time may finish within
// grace, so nobody may be at work any more.
func (Expire) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	due := RequestDeadline(r)
	if due.IsZero() || now.Before(due) {
		return nil, nil
	}
	if !shut(r, now) {
		return nil, failure.LinkBusy
	}
	return &tokenv1.RequestExpired{At: timestamppb.New(now), Deadline: r.GetDeadline()}, nil
}

// Readdress gives a link to the person whom the sender named in place of the one who holds it: another address, another person in
// the vault, and nothing that went to the old address works any more.
type Readdress struct{ HolderID, ReasonID string }

// Decide rotates in one step, whatever the link's state, unless it is final; it waits for a signature that is being made.
func (c Readdress) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	switch {
	case l.GetStatus() == tokenv1.LinkStatus_LINK_STATUS_UNSPECIFIED:
		return nil, failure.Unavailable // its turn has just come: in a moment there is a link
	case final(l):
		return nil, ended(l)
	case c.HolderID == l.GetHolderId():
		return nil, nil
	}
	if err := held(l, now); err != nil {
		return nil, err
	}
	if overdue(l, now) {
		return nil, failure.RequestExpired
	}
	return &tokenv1.LinkReissued{
		FromGeneration: l.GetGeneration(), Generation: l.GetGeneration() + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_ADDRESS_CHANGED,
		At: timestamppb.New(now), ExpiresAt: lifetime(l, now), HolderId: c.HolderID, FormerHolderId: l.GetHolderId(), ReasonId: c.ReasonID,
	}, nil
}

// MoveDeadline tells a link the deadline of its request, as the amendment with this number set it.
type MoveDeadline struct {
	Number   uint32
	Deadline *timestamppb.Timestamp
}

// Decide takes the newest amendment. A generation that the old deadline had cut short ends with the new one, a lifetime from now at
// most; what has expired stays expired.
func (c MoveDeadline) Decide(l *tokenv1.Link, now time.Time) (proto.Message, error) {
	if c.Deadline == nil || c.Number <= l.GetDeadlineNumber() && l.GetDeadline() != nil || l.GetGeneration() == 0 || final(l) ||
		proto.Equal(c.Deadline, l.GetDeadline()) {
		return nil, nil
	}
	expires := l.GetExpiresAt().AsTime()
	if !expired(l, now) {
		if l.GetDeadline() != nil && expires.Equal(l.GetDeadline().AsTime()) {
			expires = now.Add(l.GetProfile().GetLifetime().AsDuration())
		}
		if c.Deadline.AsTime().Before(expires) {
			expires = c.Deadline.AsTime()
		}
	}
	return &tokenv1.LinkDeadlineMoved{Number: c.Number, Deadline: c.Deadline, ExpiresAt: timestamppb.New(expires)}, nil
}
