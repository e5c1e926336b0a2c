package rules_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

const (
	waiting = tokenv1.SeatStatus_SEAT_STATUS_WAITING
	open    = tokenv1.SeatStatus_SEAT_STATUS_OPEN
	signed  = tokenv1.SeatStatus_SEAT_STATUS_SIGNED
)

// asked is a request as a platform makes it, with one seat for each group.
func asked(groups ...uint32) *tokenv1.Request {
	r := &tokenv1.Request{Id: "req_1", Tenant: "acme", FieldDigests: map[string][]byte{"reference": []byte("r"), "title": []byte("t")}}
	for i, g := range groups {
		r.Seats = append(r.Seats, &tokenv1.Seat{LinkId: seatID(i), Position: uint32(i + 1), Group: g, PersonId: "per_" + seatID(i)})
	}
	return r
}

func seatID(i int) string { return "lnk_" + string(rune('a'+i)) }

type requestCommand interface {
	Decide(*tokenv1.Request, time.Time) (proto.Message, error)
}

// request is asked(groups), accepted at noon, and what the commands that follow, all at noon, make of it.
func request(t *testing.T, groups []uint32, commands ...requestCommand) *tokenv1.Request {
	t.Helper()
	r := &tokenv1.Request{}
	for _, c := range append([]requestCommand{rules.Accept{Request: asked(groups...)}}, commands...) {
		fact, err := c.Decide(r, noon)
		if err != nil {
			t.Fatal(err)
		}
		if fact != nil {
			r = rules.EvolveRequest(proto.CloneOf(r), fact)
		}
	}
	return r
}

func statuses(r *tokenv1.Request) []tokenv1.SeatStatus {
	var all []tokenv1.SeatStatus
	for _, s := range r.GetSeats() {
		all = append(all, s.GetStatus())
	}
	return all
}

func TestAccept(t *testing.T) {
	r := request(t, []uint32{3, 2, 3})
	if r.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_IN_PROGRESS || r.GetGroup() != 2 || !r.GetAcceptedAt().AsTime().Equal(noon) {
		t.Errorf("accepted as %v", r)
	}
	if got := statuses(r); !slices.Equal(got, []tokenv1.SeatStatus{waiting, open, waiting}) {
		t.Errorf("seats %v", got)
	}
	if fact, err := (rules.Accept{Request: asked(3, 2, 3)}).Decide(r, noon.Add(day)); fact != nil || err != nil {
		t.Errorf("the same again: %v, %v", fact, err)
	}
}

// TestConflictNamesFields is spec 1.2: the same reference with other content is a conflict that says in what.
func TestConflictNamesFields(t *testing.T) {
	digests := func(pairs ...string) map[string][]byte {
		m := map[string][]byte{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = []byte(pairs[i+1])
		}
		return m
	}
	for name, tt := range map[string]struct {
		before, now map[string][]byte
		want        []string
	}{
		"the same":            {digests("title", "t"), digests("title", "t"), nil},
		"another title":       {digests("title", "t", "value", "v"), digests("title", "u", "value", "v"), []string{"title"}},
		"two, in their order": {digests("title", "t", "signers", "s"), digests("title", "u", "signers", "v"), []string{"signers", "title"}},
		"one more":            {digests("title", "t"), digests("title", "t", "profile", "p"), []string{"profile"}},
		"one less":            {digests("title", "t", "profile", "p"), digests("title", "t"), []string{"profile"}},
	} {
		t.Run(name, func(t *testing.T) {
			first := asked(1)
			first.FieldDigests = tt.before
			fact, err := rules.Accept{Request: first}.Decide(&tokenv1.Request{}, noon)
			if err != nil {
				t.Fatal(err)
			}
			again := asked(1)
			again.FieldDigests = tt.now
			_, err = rules.Accept{Request: again}.Decide(rules.EvolveRequest(&tokenv1.Request{}, fact), noon)
			var got []string
			if f := failure.From(err); f != nil {
				for _, field := range f.Fields {
					got = append(got, field.Path)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("error %v names %v, want %v", err, got, tt.want)
			}
		})
	}
}

// TestGroups is spec 1.1: parallel within a group, one group after the other.
func TestGroups(t *testing.T) {
	sign := func(i int) requestCommand { return rules.SeatSigned{LinkID: seatID(i)} }
	progressed := func(i int, opened uint32) proto.Message {
		return &tokenv1.RequestProgressed{LinkId: seatID(i), Position: uint32(i + 1), OpenedGroup: opened}
	}
	completed := func(i int) proto.Message {
		return &tokenv1.RequestCompleted{LinkId: seatID(i), Position: uint32(i + 1), At: at(noon)}
	}
	for name, tt := range map[string]struct {
		groups []uint32
		before []requestCommand
		when   int
		then   proto.Message
		seats  []tokenv1.SeatStatus
	}{
		"alone":                           {[]uint32{1}, nil, 0, completed(0), []tokenv1.SeatStatus{signed}},
		"the first of two at once":        {[]uint32{1, 1}, nil, 1, progressed(1, 0), []tokenv1.SeatStatus{open, signed}},
		"the last of two at once":         {[]uint32{1, 1}, []requestCommand{sign(1)}, 0, completed(0), []tokenv1.SeatStatus{signed, signed}},
		"the first of two in turn":        {[]uint32{1, 2}, nil, 0, progressed(0, 2), []tokenv1.SeatStatus{signed, open}},
		"the last of two in turn":         {[]uint32{1, 2}, []requestCommand{sign(0)}, 1, completed(1), []tokenv1.SeatStatus{signed, signed}},
		"a gap between groups":            {[]uint32{7, 3, 7}, nil, 1, progressed(1, 7), []tokenv1.SeatStatus{open, signed, open}},
		"told twice":                      {[]uint32{1, 1}, []requestCommand{sign(0)}, 0, nil, []tokenv1.SeatStatus{signed, open}},
		"after the end":                   {[]uint32{1, 1}, []requestCommand{rules.SeatDeclined{LinkID: seatID(1)}}, 0, nil, []tokenv1.SeatStatus{open, tokenv1.SeatStatus_SEAT_STATUS_DECLINED}},
		"after it was cancelled":          {[]uint32{1}, []requestCommand{rules.BeginCancel{}, rules.Cancel{}}, 0, nil, []tokenv1.SeatStatus{open}},
		"of a seat that it does not have": {[]uint32{1}, nil, 4, nil, []tokenv1.SeatStatus{open}},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, tt.groups, tt.before...)
			fact, err := sign(tt.when).Decide(r, noon)
			if diff := cmp.Diff(tt.then, fact, protocmp.Transform()); diff != "" || err != nil {
				t.Errorf("error %v; fact (-want +got)\n%s", err, diff)
			}
			if fact != nil {
				r = rules.EvolveRequest(r, fact)
			}
			if got := statuses(r); !slices.Equal(got, tt.seats) {
				t.Errorf("seats %v, want %v", got, tt.seats)
			}
		})
	}
}

func TestSeatDeclined(t *testing.T) {
	decline := rules.SeatDeclined{LinkID: seatID(0), ReasonID: "not_1"}
	want := &tokenv1.RequestDeclined{LinkId: seatID(0), Position: 1, ReasonId: "not_1", At: at(noon)}
	for name, tt := range map[string]struct {
		before []requestCommand
		when   requestCommand
		then   proto.Message
	}{
		"ends it":                {nil, decline, want},
		"once":                   {[]requestCommand{decline}, decline, nil},
		"not after signing":      {[]requestCommand{rules.SeatSigned{LinkID: seatID(0)}}, decline, nil},
		"not after another":      {[]requestCommand{rules.SeatDeclined{LinkID: seatID(1)}}, decline, nil},
		"not once cancelled":     {[]requestCommand{rules.BeginCancel{}, rules.Cancel{}}, decline, nil},
		"not of an unknown seat": {nil, rules.SeatDeclined{LinkID: "lnk_z"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fact, err := tt.when.Decide(request(t, []uint32{1, 1}, tt.before...), noon)
			if diff := cmp.Diff(tt.then, fact, protocmp.Transform()); diff != "" || err != nil {
				t.Errorf("error %v; fact (-want +got)\n%s", err, diff)
			}
		})
	}
	if r := request(t, []uint32{1, 1}, decline); r.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_DECLINED || r.GetCloseReasonId() != "not_1" || r.GetClosedAt() == nil {
		t.Errorf("declined as %v", r)
	}
}

// TestCancel is decisions 8: a cancellation is decided while nothing is admitted, and early enough to be recorded in that time.
func TestCancel(t *testing.T) {
	begun := request(t, []uint32{1}, rules.BeginCancel{})
	until := begun.GetCancelBegunUntil().AsTime()
	window := until.Sub(noon)
	done := request(t, []uint32{1}, rules.BeginCancel{}, rules.Cancel{ReasonID: "not_1"})
	completed := request(t, []uint32{1}, rules.SeatSigned{LinkID: seatID(0)})
	declined := request(t, []uint32{1}, rules.SeatDeclined{LinkID: seatID(0)})
	cancelled := func(by time.Time) proto.Message { return &tokenv1.RequestCancelled{ReasonId: "not_1", At: at(by)} }
	last := until.Add(-rules.CancelSpare)
	for name, tt := range map[string]struct {
		given   *tokenv1.Request
		when    requestCommand
		at      time.Time
		then    proto.Message
		refused *failure.Error
	}{
		"begins":                   {request(t, []uint32{1}), rules.BeginCancel{}, noon, &tokenv1.RequestCancelBegun{Until: at(noon.Add(window))}, nil},
		"begins again":             {begun, rules.BeginCancel{}, noon.Add(time.Second), &tokenv1.RequestCancelBegun{Until: at(noon.Add(time.Second + window))}, nil},
		"begins of the cancelled":  {done, rules.BeginCancel{}, noon, nil, nil},
		"begins of the completed":  {completed, rules.BeginCancel{}, noon, nil, failure.RequestClosed},
		"begins of the declined":   {declined, rules.BeginCancel{}, noon, nil, failure.RequestClosed},
		"begins of the unknown":    {&tokenv1.Request{}, rules.BeginCancel{}, noon, nil, failure.RequestUnknown},
		"ends":                     {begun, rules.Cancel{ReasonID: "not_1"}, noon, cancelled(noon), nil},
		"ends at the last instant": {begun, rules.Cancel{ReasonID: "not_1"}, last.Add(-ms), cancelled(last.Add(-ms)), nil},
		"comes too late":           {begun, rules.Cancel{ReasonID: "not_1"}, last, nil, failure.LinkBusy},
		"ends what was not begun":  {request(t, []uint32{1}), rules.Cancel{}, noon, nil, failure.LinkBusy},
		"ends once":                {done, rules.Cancel{ReasonID: "not_2"}, noon, nil, nil},
		"ends what was completed":  {completed, rules.Cancel{}, noon, nil, failure.RequestClosed},
		"ends the unknown":         {&tokenv1.Request{}, rules.Cancel{}, noon, nil, failure.RequestUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			fact, err := tt.when.Decide(tt.given, tt.at)
			if diff := cmp.Diff(tt.then, fact, protocmp.Transform()); diff != "" {
				t.Errorf("fact (-want +got)\n%s", diff)
			}
			refusedAs(t, err, tt.refused, 0)
		})
	}
	for name, tt := range map[string]struct {
		given *tokenv1.Request
		at    time.Time
		want  *failure.Error
		wait  time.Duration
	}{
		"in progress":                  {request(t, []uint32{1}), noon, nil, 0},
		"while a cancellation is open": {begun, until.Add(-ms), failure.LinkBusy, ms},
		"when it was not decided":      {begun, until, nil, 0},
		"once cancelled":               {done, until, failure.LinkCancelled, 0},
		"once declined":                {declined, noon, failure.LinkCancelled, 0},
		"once completed":               {completed, noon, failure.LinkCancelled, 0},
		"of a request that never was":  {&tokenv1.Request{}, noon, failure.RequestUnknown, 0},
	} {
		t.Run("a signature "+name, func(t *testing.T) {
			refusedAs(t, rules.MayAdmit(tt.given, tt.at), tt.want, tt.wait)
		})
	}
	if done.GetCancelBegunUntil() != nil || done.GetStatus() != signingv1.RequestStatus_REQUEST_STATUS_CANCELLED || done.GetCloseReasonId() != "not_1" {
		t.Errorf("cancelled as %v", done)
	}
}

// TestMayCancel: a cancellation meets no signature that is being made, and none that its request has yet to hear of.
func TestMayCancel(t *testing.T) {
	begun := out(redeemed(ada, noon))
	for name, tt := range map[string]struct {
		seat  tokenv1.SeatStatus
		given facts
		at    time.Time
		want  *failure.Error
		wait  time.Duration
	}{
		"not issued":                     {waiting, nil, noon, nil, 0},
		"open":                           {open, out(), noon, nil, 0},
		"a session":                      {open, begun, noon, nil, 0},
		"a signature that is being made": {open, append(begun, admitted(noon)), noon.Add(rules.AdmissionHold - ms), failure.LinkBusy, ms},
		"one that was not made":          {open, append(begun, admitted(noon)), noon.Add(rules.AdmissionHold), nil, 0},
		"signed, not heard of":           {open, append(begun, &tokenv1.LinkSigned{}), noon, failure.LinkBusy, 0},
		"signed":                         {signed, append(begun, &tokenv1.LinkSigned{}), noon, nil, 0},
		"declined, not heard of":         {open, append(begun, &tokenv1.LinkDeclined{}), noon, failure.LinkBusy, 0},
		"withdrawn":                      {open, append(begun, &tokenv1.LinkRevoked{}), noon, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			refusedAs(t, rules.MayCancel(&tokenv1.Seat{Status: tt.seat}, link(tt.given), tt.at), tt.want, tt.wait)
		})
	}
}

// TestUnsettled: an admission of which nothing was heard since, over or not.
func TestUnsettled(t *testing.T) {
	begun := out(redeemed(ada, noon))
	for name, tt := range map[string]struct {
		given facts
		want  bool
	}{
		"never issued":  {nil, false},
		"a session":     {begun, false},
		"admitted":      {append(begun, admitted(noon)), true},
		"signed":        {append(begun, admitted(noon), &tokenv1.LinkSigned{}), false},
		"declined":      {append(begun, admitted(noon), &tokenv1.LinkDeclined{}), false},
		"rotated since": {append(begun, admitted(noon), reissued(1, noon)), false},
	} {
		if got := rules.Unsettled(link(tt.given)); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

func TestSeatOf(t *testing.T) {
	r := asked(1, 2)
	if got := rules.SeatOf(r, seatID(1)); got.GetPosition() != 2 {
		t.Errorf("found %v", got)
	}
	if got := rules.SeatOf(r, "lnk_z"); got != nil {
		t.Errorf("found %v", got)
	}
}
