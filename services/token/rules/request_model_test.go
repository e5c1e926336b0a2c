package rules_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// requestModel is what the spec says of one request.
type requestModel struct {
	state  *tokenv1.Request
	now    time.Time
	groups []uint32
	signed map[string]bool
	ended  string    // the fact that ended it
	shut   time.Time // until when nothing is admitted

	deadline   time.Time // zero is none
	amendments uint32
}

// TestRequestModel has random signatures, refusals and cancellations, told more than once and in any order that can be.
func TestRequestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &requestModel{state: &tokenv1.Request{}, now: noon, signed: map[string]bool{}}
		m.groups = rapid.SliceOfN(rapid.Uint32Range(1, 4), 1, 6).Draw(t, "groups")
		m.do(t, rules.Accept{Request: asked(m.groups...)})
		seat := rapid.IntRange(0, len(m.groups)-1)
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.Int64Range(1, int64(time.Minute)).Draw(t, "for")))
			},
			"accepted again": func(t *rapid.T) {
				if fact := m.do(t, rules.Accept{Request: asked(m.groups...)}); fact != nil {
					t.Fatal("accepted twice")
				}
			},
			"signed": func(t *rapid.T) {
				id := seatID(seat.Draw(t, "seat"))
				if rules.SeatOf(m.state, id).GetStatus() == waiting {
					t.Skip("has no link yet")
				}
				fact := m.do(t, rules.SeatSigned{LinkID: id})
				if fact != nil {
					m.signed[id] = true
				}
			},
			"declined": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "rarely") == 0 {
					id := seatID(seat.Draw(t, "seat"))
					if fact := m.do(t, rules.SeatDeclined{LinkID: id}); fact != nil && m.signed[id] {
						t.Fatal("declined after signing")
					}
				}
			},
			"begin to cancel": func(t *rapid.T) {
				if rapid.IntRange(0, 5).Draw(t, "rarely") == 0 {
					m.do(t, rules.BeginCancel{})
				}
			},
			"cancel": func(t *rapid.T) { m.do(t, rules.Cancel{}) },
			"expire": func(t *rapid.T) { m.do(t, rules.Expire{}) },
			"the deadline moves": func(t *rapid.T) {
				to := m.now.Add(time.Duration(rapid.Int64Range(int64(-time.Minute), int64(10*time.Minute)).Draw(t, "to")))
				if fact := m.do(t, rules.Amend{Deadline: timestamppb.New(to)}); fact != nil && !to.After(m.now) {
					t.Fatal("a deadline in the past")
				}
			},
			"the order changes":  func(t *rapid.T) { m.reorder(t, seat.Draw(t, "seat"), rapid.Uint32Range(1, 4).Draw(t, "group")) },
			"an address changes": func(t *rapid.T) { m.readdress(t, seat.Draw(t, "seat"), rapid.Uint32Range(0, 3).Draw(t, "generation")) },
			"the words change":   func(t *rapid.T) { m.do(t, rules.Amend{PrivateID: "wrd_2", FromPrivateID: m.state.GetPrivateId()}) },
			"erased": func(t *rapid.T) {
				link := ""
				if rapid.Bool().Draw(t, "one signer") {
					link = seatID(seat.Draw(t, "seat"))
				}
				if fact := m.do(t, rules.Erase{LinkID: link}); fact != nil && m.do(t, rules.Erase{LinkID: link}) != nil {
					t.Fatal("erased twice")
				}
			},
			"nothing is to change": func(t *rapid.T) {
				if m.do(t, rules.Amend{Deadline: m.state.GetDeadline()}) != nil && m.ended != "" {
					t.Fatal("amended to what it was")
				}
			},
			"": m.check,
		})
	})
}

func (m *requestModel) do(t *rapid.T, c requestCommand) proto.Message {
	fact, err := c.Decide(m.state, m.now)
	if fact == nil || err != nil {
		return nil
	}
	if _, erased := fact.(*tokenv1.RequestErased); erased != (m.ended != "") {
		t.Fatalf("%T, ended %q", fact, m.ended)
	}
	switch f := fact.(type) {
	case *tokenv1.RequestCompleted:
		if len(m.signed)+1 != len(m.groups) || m.signed[f.GetLinkId()] {
			t.Fatalf("completed with %d of %d", len(m.signed)+1, len(m.groups))
		}
		m.ended = "completed"
	case *tokenv1.RequestDeclined:
		m.ended = "declined"
	case *tokenv1.RequestCancelBegun:
		m.shut = f.GetUntil().AsTime()
		if !m.shut.After(m.now) {
			t.Fatal("begun for no time")
		}
	case *tokenv1.RequestCancelled:
		// Recorded a moment later, it must still stand before anything is admitted again.
		if !m.now.Add(rules.CancelSpare).Before(m.shut) {
			t.Fatalf("cancelled at %s, shut until %s", m.now, m.shut)
		}
		m.ended = "cancelled"
	case *tokenv1.RequestExpired:
		if m.deadline.IsZero() || m.now.Before(m.deadline) || !m.now.Add(rules.CancelSpare).Before(m.shut) {
			t.Fatalf("expired at %s, deadline %s, shut until %s", m.now, m.deadline, m.shut)
		}
		m.ended = "expired"
	case *tokenv1.RequestAmended:
		if m.amendments++; f.GetNumber() != m.amendments {
			t.Fatalf("amendment %d is numbered %d", m.amendments, f.GetNumber())
		}
		if f.GetDeadline() != nil {
			m.deadline = f.GetDeadline().AsTime()
		}
	}
	m.state = rules.EvolveRequest(proto.CloneOf(m.state), fact)
	return fact
}

// reorder moves a seat: only one that waits, and not into a group whose turn is over.
func (m *requestModel) reorder(t *rapid.T, seat int, group uint32) {
	was, turn := m.state.GetSeats()[seat], m.turn()
	waits := was.GetStatus() == waiting
	if m.do(t, rules.Amend{Seats: []rules.SeatChange{{LinkID: seatID(seat), Path: "signers[0]", Group: group}}}) == nil {
		return
	}
	if !waits || group < turn {
		t.Fatalf("a seat of group %d that is %s came into group %d in the turn of %d", m.groups[seat], was.GetStatus(), group, turn)
	}
	m.groups[seat] = group
}

// readdress names another signer: before a link was made the request decides, afterwards the link has.
func (m *requestModel) readdress(t *rapid.T, seat int, generation uint32) {
	before := proto.CloneOf(m.state.GetSeats()[seat])
	person := "per_" + seatID(seat) + string(rune('0'+generation))
	fact := m.do(t, rules.Amend{Seats: []rules.SeatChange{{LinkID: seatID(seat), Path: "signers[0]", PersonID: person, Generation: generation}}})
	if fact == nil {
		return
	}
	if generation == 0 && before.GetStatus() != waiting || generation > 0 && generation <= before.GetPersonGeneration() {
		t.Fatalf("%s of generation %d came after generation %d, %s", person, generation, before.GetPersonGeneration(), before.GetStatus())
	}
}

func (m *requestModel) check(t *rapid.T) {
	if inProgress := m.state.GetStatus() == signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS; inProgress != (m.ended == "") {
		t.Fatalf("%s, ended: %q", m.state.GetStatus(), m.ended)
	}
	if may := rules.MayAdmit(m.state, m.now) == nil; may != (m.ended == "" && !m.now.Before(m.shut)) {
		t.Fatalf("a signature may begin: %t; ended %q, shut until %s at %s", may, m.ended, m.shut, m.now)
	}
	if due := rules.RequestDeadline(m.state); due.IsZero() != (m.ended != "" || m.deadline.IsZero()) {
		t.Fatalf("the deadline %s falls due at %s, ended %q", m.deadline, due, m.ended)
	}
	turn := m.turn()
	for i, s := range m.state.GetSeats() {
		switch {
		case (s.GetStatus() == signed) != m.signed[s.GetLinkId()]:
			t.Fatalf("seat %d is %s, signed: %t", i, s.GetStatus(), m.signed[s.GetLinkId()])
		case m.ended == "" && (s.GetStatus() == open) != (m.groups[i] == turn && !m.signed[s.GetLinkId()]):
			t.Fatalf("seat %d of group %d is %s in the turn of group %d", i, m.groups[i], s.GetStatus(), turn)
		}
	}
}

// turn is the smallest group in which somebody has not signed.
func (m *requestModel) turn() uint32 {
	turn := uint32(0)
	for i, g := range m.groups {
		if !m.signed[seatID(i)] && (turn == 0 || g < turn) {
			turn = g
		}
	}
	return turn
}
