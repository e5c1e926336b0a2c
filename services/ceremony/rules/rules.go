// Package rules is what may happen to the documents of a request and to everybody's act on them. It is pure.
//
// One ceremony for all signers of a request: a signature names the revision it was made on and the one it made, so two signers
// can never fork a document. The life of one signer's seat (spec 8.1):
//
//	-Show-> shown -Consent-> consented -Sign-> signed
//	                          shown, consented -Decline-> declined
//
// Another session begins again at shown; signed and declined are final.
package rules

import (
	"bytes"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
)

// ErrMoved means that another signer's revision came first: the signature has to be made again on that one.
var ErrMoved = errors.New("rules: the document has a newer revision")

// SeatOf returns the seat of a link; nil when it has not begun.
func SeatOf(c *ceremonyv1.Ceremony, linkID string) *ceremonyv1.Seat {
	for _, s := range c.GetSeats() {
		if s.GetLinkId() == linkID {
			return s
		}
	}
	return nil
}

// DocumentOf returns a document; nil when there is none such.
func DocumentOf(c *ceremonyv1.Ceremony, id string) *ceremonyv1.Document {
	for _, d := range c.GetDocuments() {
		if d.GetId() == id {
			return d
		}
	}
	return nil
}

// Evolve returns the ceremony after fact; it may change c. A fact of a newer release is passed over.
func Evolve(c *ceremonyv1.Ceremony, fact proto.Message) *ceremonyv1.Ceremony {
	switch f := fact.(type) {
	case *ceremonyv1.CeremonyPrepared:
		return proto.CloneOf(f.GetCeremony())
	case *ceremonyv1.DocumentShown:
		s := seat(c, f.GetLinkId(), f.GetPosition())
		s.Status, s.SessionId, s.Consent = ceremonyv1.SeatStatus_SEAT_STATUS_SHOWN, f.GetSessionId(), nil
	case *ceremonyv1.ConsentGiven:
		s := seat(c, f.GetLinkId(), f.GetPosition())
		s.Status, s.SessionId, s.Consent = ceremonyv1.SeatStatus_SEAT_STATUS_CONSENTED, f.GetSessionId(), f.GetConsent()
	case *ceremonyv1.CeremonySigned:
		s := seat(c, f.GetLinkId(), f.GetPosition())
		s.Status, s.SessionId, s.ActedAt = ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED, f.GetSessionId(), f.GetAt()
		s.NameId = f.GetNoteIds()["sign.name"]
		if d := DocumentOf(c, f.GetDocumentId()); d != nil {
			d.CurrentSha256 = f.GetAfterSha256()
			d.Signatures++
		}
	case *ceremonyv1.CeremonyDeclined:
		s := seat(c, f.GetLinkId(), f.GetPosition())
		s.Status, s.SessionId, s.ActedAt = ceremonyv1.SeatStatus_SEAT_STATUS_DECLINED, f.GetSessionId(), f.GetAt()
	}
	return c
}

// seat returns the seat of a link, begun where it is not there.
func seat(c *ceremonyv1.Ceremony, linkID string, position uint32) *ceremonyv1.Seat {
	if s := SeatOf(c, linkID); s != nil {
		return s
	}
	s := &ceremonyv1.Seat{LinkId: linkID, Position: position}
	c.Seats = append(c.Seats, s)
	return s
}

// ready refuses before the documents are there, and acted after the seat's last act.
func ready(c *ceremonyv1.Ceremony) error {
	if len(c.GetDocuments()) == 0 {
		return failure.DocumentNotReady
	}
	return nil
}

func acted(s *ceremonyv1.Seat) error {
	switch s.GetStatus() {
	case ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED:
		return failure.LinkSigned
	case ceremonyv1.SeatStatus_SEAT_STATUS_DECLINED:
		return failure.LinkDeclined
	default:
		return nil
	}
}

// Prepare begins a ceremony.
type Prepare struct{ Ceremony *ceremonyv1.Ceremony }

// Decide prepares once.
func (p Prepare) Decide(c *ceremonyv1.Ceremony, _ time.Time) (proto.Message, error) {
	if len(c.GetDocuments()) > 0 {
		return nil, nil
	}
	return &ceremonyv1.CeremonyPrepared{Ceremony: p.Ceremony}, nil
}

// Show records that a session was served the document.
type Show struct {
	LinkID, SessionID string
	Position          uint32
}

// Decide states it once a session.
func (p Show) Decide(c *ceremonyv1.Ceremony, _ time.Time) (proto.Message, error) {
	if err := ready(c); err != nil {
		return nil, err
	}
	s := SeatOf(c, p.LinkID)
	if acted(s) != nil || (s != nil && s.GetSessionId() == p.SessionID) {
		return nil, nil
	}
	return &ceremonyv1.DocumentShown{
		LinkId: p.LinkID, Position: p.Position, SessionId: p.SessionID, DocumentSha256: c.GetDocuments()[0].GetCurrentSha256(),
	}, nil
}

// Consent records the agreement to sign electronically.
type Consent struct {
	LinkID, SessionID string
	Position          uint32
	Consent           *ceremonyv1.Consent
}

// Decide wants the document to have been shown in this session: that is what demonstrates that the signer can read what is
// agreed to (ESIGN 7001(c)(1)(C)(ii)).
func (p Consent) Decide(c *ceremonyv1.Ceremony, _ time.Time) (proto.Message, error) {
	if err := ready(c); err != nil {
		return nil, err
	}
	s := SeatOf(c, p.LinkID)
	if err := acted(s); err != nil {
		return nil, err
	}
	if s == nil || s.GetSessionId() != p.SessionID || len(p.Consent.GetTextSha256()) != 32 {
		return nil, failure.ConsentRequired
	}
	if proto.Equal(s.GetConsent(), p.Consent) {
		return nil, nil
	}
	return &ceremonyv1.ConsentGiven{LinkId: p.LinkID, Position: p.Position, SessionId: p.SessionID, Consent: p.Consent}, nil
}

// Sign records a signature that was made; its revision is stored already.
type Sign struct{ Signed *ceremonyv1.CeremonySigned }

// Decide takes a signature made on the newest revision alone, once a seat.
func (p Sign) Decide(c *ceremonyv1.Ceremony, now time.Time) (proto.Message, error) {
	if err := ready(c); err != nil {
		return nil, err
	}
	s := SeatOf(c, p.Signed.GetLinkId())
	if s.GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_SIGNED {
		return nil, nil
	}
	if err := acted(s); err != nil {
		return nil, err
	}
	if s.GetStatus() != ceremonyv1.SeatStatus_SEAT_STATUS_CONSENTED || s.GetSessionId() != p.Signed.GetSessionId() {
		return nil, failure.ConsentRequired
	}
	d := DocumentOf(c, p.Signed.GetDocumentId())
	if d == nil {
		return nil, failure.DocumentNotReady
	}
	if !bytes.Equal(d.GetCurrentSha256(), p.Signed.GetBeforeSha256()) {
		return nil, ErrMoved
	}
	signed := proto.CloneOf(p.Signed)
	signed.At, signed.PresentedSha256 = timestamppb.New(now), d.GetPresentedSha256()
	return signed, nil
}

// Decline records that a signer will not sign.
type Decline struct {
	LinkID, SessionID, ReasonID string
	Position                    uint32
}

// Decide declines once; who has signed cannot decline any more.
func (p Decline) Decide(c *ceremonyv1.Ceremony, now time.Time) (proto.Message, error) {
	if err := ready(c); err != nil {
		return nil, err
	}
	s := SeatOf(c, p.LinkID)
	if s.GetStatus() == ceremonyv1.SeatStatus_SEAT_STATUS_DECLINED {
		return nil, nil
	}
	if err := acted(s); err != nil {
		return nil, err
	}
	return &ceremonyv1.CeremonyDeclined{
		LinkId: p.LinkID, Position: p.Position, SessionId: p.SessionID, ReasonId: p.ReasonID, At: timestamppb.New(now),
	}, nil
}
