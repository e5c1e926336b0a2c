package rules

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Erase has what is personal about a request destroyed, or about the signer of one link.
type Erase struct {
	LinkID string // "": all of the request
	Basis  string // what it is done for
}

// Decide refuses while the request goes on: whoever still signs needs a name, an address and the document. What is erased already is not
// erased again.
func (c Erase) Decide(r *tokenv1.Request, now time.Time) (proto.Message, error) {
	seat := SeatOf(r, c.LinkID)
	switch {
	case r.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_UNSPECIFIED:
		return nil, failure.RequestUnknown
	case c.LinkID != "" && seat == nil:
		return nil, failure.SignerUnknown
	case !closed(r):
		return nil, failure.RequestOpen
	case r.GetErasedAt() != nil, seat.GetErasedAt() != nil:
		return nil, nil
	}
	return &tokenv1.RequestErased{At: timestamppb.New(now), LinkId: c.LinkID, Position: seat.GetPosition(), Basis: c.Basis}, nil
}

// erase says when what was erased: who was erased alone before stays erased since then.
func erase(r *tokenv1.Request, f *tokenv1.RequestErased) {
	if f.GetLinkId() == "" {
		r.ErasedAt = f.GetAt()
	}
	for _, s := range r.GetSeats() {
		if (f.GetLinkId() == "" || f.GetLinkId() == s.GetLinkId()) && s.GetErasedAt() == nil {
			s.ErasedAt = f.GetAt()
		}
	}
}
