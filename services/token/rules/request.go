package rules

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const (
	// cancelWindow is how long a cancellation may take; nothing is admitted meanwhile.
	cancelWindow = 30 * time.Second
	// CancelSpare is how much of that time must be left when a cancellation is decided: the record may take that long to take it.
	CancelSpare = 20 * time.Second
)

// closed tells whether a request has ended.
func closed(r *tokenv1.Request) bool {
	return r.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS
}

// SeatOf returns the seat of a link; nil when the request has none such.
func SeatOf(r *tokenv1.Request, linkID string) *tokenv1.Seat {
	for _, s := range r.GetSeats() {
		if s.GetLinkId() == linkID {
			return s
		}
	}
	return nil
}

// MayAdmit says whether a signature may be begun under this request at now.
func MayAdmit(r *tokenv1.Request, now time.Time) error {
	switch {
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED:
		return failure.RequestUnknown
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_EXPIRED:
		return failure.RequestExpired
	case closed(r):
		return failure.LinkCancelled
	case r.GetCancelBegunUntil() != nil && now.Before(r.GetCancelBegunUntil().AsTime()):
		return failure.LinkBusy.After(r.GetCancelBegunUntil().AsTime().Sub(now))
	}
	return nil
}

// EvolveRequest returns the request after fact; it may change r. A fact of a newer release is passed over.
func EvolveRequest(r *tokenv1.Request, fact proto.Message) *tokenv1.Request {
	switch f := fact.(type) {
	case *tokenv1.RequestAccepted:
		return proto.CloneOf(f.GetRequest())
	case *tokenv1.RequestProgressed:
		SeatOf(r, f.GetLinkId()).Status = tokenv1.SeatStatus_SEAT_STATUS_SIGNED
		if f.GetOpenedGroup() != 0 {
			openGroup(r, f.GetOpenedGroup())
		}
	case *tokenv1.RequestCompleted:
		SeatOf(r, f.GetLinkId()).Status = tokenv1.SeatStatus_SEAT_STATUS_SIGNED
		r.Status, r.ClosedAt = signingv1.RequestStatus_REQUEST_STATUS_COMPLETED, f.GetAt()
	case *tokenv1.RequestDeclined:
		SeatOf(r, f.GetLinkId()).Status = tokenv1.SeatStatus_SEAT_STATUS_DECLINED
		r.Status, r.ClosedAt, r.CloseReasonId = signingv1.RequestStatus_REQUEST_STATUS_DECLINED, f.GetAt(), f.GetReasonId()
	case *tokenv1.RequestCancelBegun:
		r.CancelBegunUntil = f.GetUntil()
	case *tokenv1.RequestCancelled:
		r.Status, r.ClosedAt, r.CloseReasonId = signingv1.RequestStatus_REQUEST_STATUS_CANCELLED, f.GetAt(), f.GetReasonId()
		r.CancelBegunUntil = nil
	case *tokenv1.RequestAmended:
		amend(r, f)
	case *tokenv1.RequestErased:
		erase(r, f)
	case *tokenv1.RequestExpired:
		r.Status, r.ClosedAt, r.CancelBegunUntil = signingv1.RequestStatus_REQUEST_STATUS_EXPIRED, f.GetAt(), nil
	}
	return r
}

func openGroup(r *tokenv1.Request, group uint32) {
	r.Group = group
	for _, s := range r.GetSeats() {
		if s.GetGroup() == group && s.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_WAITING {
			s.Status = tokenv1.SeatStatus_SEAT_STATUS_OPEN
		}
	}
}

// Accept begins a request. Its seats must be in order of position, with groups of 1 and up.
type Accept struct{ Request *tokenv1.Request }

// Decide takes a reference once: the same content again is the same request, other content a conflict that names the fields (spec 1.2).
func (c Accept) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	if r.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED {
		if differing := Differences(r.GetFieldDigests(), c.Request.GetFieldDigests()); len(differing) > 0 {
			return nil, failure.RequestConflict.WithFields(differing...)
		}
		return nil, nil
	}
	begun := proto.CloneOf(c.Request)
	begun.Status, begun.AcceptedAt = signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS, timestamppb.New(now)
	for _, s := range begun.GetSeats() {
		s.Status = tokenv1.SeatStatus_SEAT_STATUS_WAITING
	}
	openGroup(begun, nextGroup(begun, 0))
	return &tokenv1.RequestAccepted{Request: begun}, nil
}

// Differences names the fields whose digests are not the same, in their order. A field that one side does not have differs.
func Differences(before, now map[string][]byte) []failure.Field {
	both := maps.Clone(before)
	if both == nil {
		both = map[string][]byte{}
	}
	maps.Copy(both, now)
	var fields []failure.Field
	for _, name := range slices.Sorted(maps.Keys(both)) {
		if !bytes.Equal(before[name], now[name]) {
			fields = append(fields, failure.Field{Path: name, Problem: "differs from the request that this reference stands for"})
		}
	}
	return fields
}

// nextGroup returns the smallest group above after; 0 when there is none.
func nextGroup(r *tokenv1.Request, after uint32) uint32 {
	next := uint32(0)
	for _, s := range r.GetSeats() {
		if g := s.GetGroup(); g > after && (next == 0 || g < next) {
			next = g
		}
	}
	return next
}

// SeatSigned follows a signature.
type SeatSigned struct{ LinkID string }

// Decide moves on to the next group when the last of this one has signed, and completes the request with the last of all.
// A signature that comes after the end changes nothing here.
func (c SeatSigned) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	seat := SeatOf(r, c.LinkID)
	if seat == nil || closed(r) || seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
		return nil, nil
	}
	for _, s := range r.GetSeats() {
		if s.GetGroup() == seat.GetGroup() && s != seat && s.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
			return &tokenv1.RequestProgressed{LinkId: c.LinkID, Position: seat.GetPosition()}, nil
		}
	}
	if next := nextGroup(r, seat.GetGroup()); next != 0 {
		return &tokenv1.RequestProgressed{LinkId: c.LinkID, Position: seat.GetPosition(), OpenedGroup: next}, nil
	}
	return &tokenv1.RequestCompleted{LinkId: c.LinkID, Position: seat.GetPosition(), At: timestamppb.New(now)}, nil
}

// SeatDeclined follows a refusal to sign, which ends the request.
type SeatDeclined struct{ LinkID, ReasonID string }

// Decide ends the request once.
func (c SeatDeclined) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	seat := SeatOf(r, c.LinkID)
	if seat == nil || closed(r) || seat.GetStatus() == tokenv1.SeatStatus_SEAT_STATUS_SIGNED {
		return nil, nil
	}
	return &tokenv1.RequestDeclined{LinkId: c.LinkID, Position: seat.GetPosition(), ReasonId: c.ReasonID, At: timestamppb.New(now)}, nil
}

// BeginCancel keeps new signatures out while it is found out whether one is being made (decisions 8). Whoever admits
// writes the admission first and reads the request after; whoever cancels writes this first and reads the links after: one of them sees the other.
type BeginCancel struct{}

// Decide refuses for a request that ended otherwise; one that is cancelled already needs nothing. The end of a deadline begins the
// same way.
func (BeginCancel) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	switch {
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED:
		return nil, failure.RequestUnknown
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_CANCELLED:
		return nil, nil
	case closed(r):
		return nil, failure.RequestClosed
	}
	return &tokenv1.RequestCancelBegun{Until: timestamppb.New(now.Add(cancelWindow))}, nil
}

// MayCancel says whether a seat's link lets its request be cancelled at now: not while a signature is being made, and not while the
// request has yet to hear of the act by which the link came to its end.
func MayCancel(seat *tokenv1.Seat, l *tokenv1.Link, now time.Time) error {
	if err := held(l, now); err != nil {
		return err
	}
	signed, declined := tokenv1.LinkStatus_LINK_STATUS_SIGNED, tokenv1.LinkStatus_LINK_STATUS_DECLINED
	if l.GetStatus() == signed && seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_SIGNED ||
		l.GetStatus() == declined && seat.GetStatus() != tokenv1.SeatStatus_SEAT_STATUS_DECLINED {
		return failure.LinkBusy
	}
	return nil
}

// shut tells whether BeginCancel keeps signatures out, and will for CancelSpare more.
func shut(r *tokenv1.Request, now time.Time) bool {
	return r.GetCancelBegunUntil() != nil && now.Add(CancelSpare).Before(r.GetCancelBegunUntil().AsTime())
}

// Cancel withdraws a request.
type Cancel struct{ ReasonID string }

// Decide cancels once, only while BeginCancel keeps signatures out, and will for CancelSpare more.
func (c Cancel) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	switch {
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED:
		return nil, failure.RequestUnknown
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_CANCELLED:
		return nil, nil
	case closed(r):
		return nil, failure.RequestClosed
	case !shut(r, now):
		return nil, failure.LinkBusy
	}
	return &tokenv1.RequestCancelled{ReasonId: c.ReasonID, At: timestamppb.New(now)}, nil
}
