package rules_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

const (
	ms  = time.Millisecond
	day = 24 * time.Hour

	lifetime = time.Hour
	grace    = 15 * time.Minute
	session  = 20 * time.Minute
)

var (
	noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	// expiry is that of the generation which given() begins.
	expiry = noon.Add(lifetime)

	ada, bob = []byte("ada's browser"), []byte("bob's browser")
	first    = []byte("token of generation 1")
	second   = []byte("token of generation 2")
)

type facts = []proto.Message

// profile is high-risk of spec 2.3, with three new links a day.
func profile() *tokenv1.Profile {
	return &tokenv1.Profile{
		Name: "high-risk", Lifetime: durationpb.New(lifetime), Grace: durationpb.New(grace), Session: durationpb.New(session),
		ReissueLimit: 3, ReissueWindow: durationpb.New(day), Assurance: 1,
	}
}

func at(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// Facts of a link's life; each stands at the time it is given.
func issued() proto.Message {
	return &tokenv1.LinkIssued{
		LinkId: "lnk_1", Tenant: "acme", RequestId: "req_1", HolderId: "per_ada", Position: 1, Profile: profile(),
		IssuedAt: at(noon), ExpiresAt: at(expiry),
	}
}

func minted(generation uint32, hash []byte, expires time.Time) proto.Message {
	return &tokenv1.LinkMinted{Generation: generation, Hash: hash, DeliveryId: "dlv_1", ExpiresAt: at(expires)}
}

func started(generation uint32) proto.Message {
	return &tokenv1.LinkClockStarted{Generation: generation, ExpiresAt: at(expiry)}
}

func sessionOf(id string, browser []byte, from time.Time) *tokenv1.Session {
	return &tokenv1.Session{Id: id, Browser: browser, StartedAt: at(from), EndsAt: at(from.Add(session))}
}

func redeemed(browser []byte, from time.Time) proto.Message {
	return &tokenv1.LinkRedeemed{Generation: 1, Session: sessionOf("ses_1", browser, from)}
}

func admitted(from time.Time) proto.Message {
	return &tokenv1.LinkAdmitted{Admission: &tokenv1.Admission{Id: "adm_1", Until: at(from.Add(rules.AdmissionHold))}, SessionId: "ses_1"}
}

func reissued(from uint32, by time.Time) proto.Message {
	return &tokenv1.LinkReissued{
		FromGeneration: from, Generation: from + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM, At: at(by), ExpiresAt: at(by.Add(lifetime)),
	}
}

func rerouted(from uint32, by time.Time) proto.Message {
	return &tokenv1.LinkRerouted{Generation: from + 1, HolderId: "per_grace", FormerHolderId: "per_ada", ExpiresAt: at(by.Add(lifetime)), EscalationId: "esc_1"}
}

// out is a link whose message went out: its clock runs and ends at expiry.
func out(more ...proto.Message) facts {
	return slices.Clip(append(facts{issued(), minted(1, first, expiry), started(1)}, more...))
}

// link is what facts lead to.
func link(given facts) *tokenv1.Link {
	l := &tokenv1.Link{}
	for _, f := range given {
		l = rules.EvolveLink(l, f)
	}
	return l
}

type linkCommand interface {
	Decide(*tokenv1.Link, time.Time) (proto.Message, error)
}

// decision is a row of a table: given facts, when a command at a time, then a fact or a failure.
type decision struct {
	given   facts
	when    linkCommand
	at      time.Time
	then    proto.Message
	refused *failure.Error
	wait    time.Duration // what a refusal says to wait
}

// stamped is a fact with the time of its decision, where it says when it was and the row leaves that out.
func stamped(fact proto.Message, at time.Time) proto.Message {
	if fact == nil {
		return nil
	}
	fact = proto.Clone(fact)
	if f := fact.ProtoReflect().Descriptor().Fields().ByName("at"); f != nil && !fact.ProtoReflect().Has(f) {
		fact.ProtoReflect().Set(f, protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()))
	}
	return fact
}

func decide(t *testing.T, table map[string]decision) {
	t.Helper()
	for name, tt := range table {
		t.Run(name, func(t *testing.T) {
			l := link(tt.given)
			before := proto.CloneOf(l)
			got, err := tt.when.Decide(l, tt.at)
			if diff := cmp.Diff(stamped(tt.then, tt.at), got, protocmp.Transform()); diff != "" {
				t.Errorf("fact (-want +got)\n%s", diff)
			}
			refusedAs(t, err, tt.refused, tt.wait)
			if !proto.Equal(l, before) {
				t.Error("deciding changed the state")
			}
		})
	}
}

func refusedAs(t *testing.T, err error, want *failure.Error, wait time.Duration) {
	t.Helper()
	switch got := failure.From(err); {
	case want == nil && err != nil:
		t.Errorf("refused: %v", err)
	case want == nil:
	case !errors.Is(err, want):
		t.Errorf("error %v, want %s", err, want.Code)
	case got.RetryAfter != wait:
		t.Errorf("%s says to wait %s, want %s", got.Code, got.RetryAfter, wait)
	}
}

// TestCheckToken is spec 2.7: each state has its own answer, and what ends at E is over at E.
func TestCheckToken(t *testing.T) {
	open := out()
	begun := out(redeemed(ada, noon.Add(50*time.Minute))) // its session ends at 13:10, within grace
	late := out(redeemed(ada, expiry.Add(-ms)))           // its session would end after grace
	early := out(redeemed(ada, noon.Add(10*time.Minute))) // its session ends long before expiry
	next := out(reissued(1, noon), minted(2, second, expiry))
	alternate := out(rerouted(1, noon), minted(2, second, expiry))
	for name, tt := range map[string]struct {
		given   facts
		hash    []byte
		browser []byte
		at      time.Time
		want    *failure.Error
	}{
		"never issued":                                 {nil, first, ada, noon, failure.LinkUnknown},
		"no token was minted":                          {facts{issued()}, first, ada, noon, failure.LinkUnknown},
		"a guess":                                      {open, []byte("token of generation 7"), ada, noon, failure.LinkUnknown},
		"an empty guess":                               {open, nil, ada, noon, failure.LinkUnknown},
		"works":                                        {open, first, ada, noon, nil},
		"works without a browser's secret":             {open, first, nil, noon, nil},
		"until just before expiry":                     {open, first, ada, expiry.Add(-ms), nil},
		"not at expiry":                                {open, first, ada, expiry, failure.LinkExpired},
		"not after expiry":                             {open, first, ada, expiry.Add(ms), failure.LinkExpired},
		"not in grace either, without a session":       {open, first, ada, expiry.Add(grace - ms), failure.LinkExpired},
		"in the browser that has the session":          {begun, first, ada, noon.Add(55 * time.Minute), nil},
		"in another browser":                           {begun, first, bob, noon.Add(55 * time.Minute), failure.LinkUsed},
		"without a browser":                            {begun, first, nil, noon.Add(55 * time.Minute), failure.LinkUsed},
		"in another browser after expiry":              {begun, first, bob, expiry, failure.LinkExpired},
		"the session goes on in grace":                 {begun, first, ada, expiry, nil},
		"until the session's own end":                  {begun, first, ada, noon.Add(70*time.Minute - ms), nil},
		"which may come before that of grace":          {begun, first, ada, noon.Add(70 * time.Minute), failure.LinkExpired},
		"grace may end first":                          {late, first, ada, expiry.Add(grace - ms), nil},
		"and then the session is over":                 {late, first, ada, expiry.Add(grace), failure.LinkExpired},
		"a session's end before expiry":                {early, first, ada, noon.Add(30*time.Minute - ms), nil},
		"is an end of the session only":                {early, first, ada, noon.Add(30 * time.Minute), failure.SessionExpired},
		"the former generation":                        {next, first, ada, noon, failure.LinkSuperseded},
		"the former generation after expiry":           {next, first, ada, expiry, failure.LinkSuperseded},
		"the newest generation":                        {next, second, ada, noon, nil},
		"who was replaced":                             {alternate, first, ada, noon, failure.LinkDelegated},
		"the alternate":                                {alternate, second, bob, noon, nil},
		"who was replaced, after the alternate signed": {append(alternate, &tokenv1.LinkSigned{}), first, ada, noon, failure.LinkDelegated},
		"withdrawn":                                    {out(&tokenv1.LinkRevoked{}), first, ada, noon, failure.LinkRevoked},
		"withdrawn, in the browser that had a session": {append(begun, &tokenv1.LinkRevoked{}), first, ada, noon, failure.LinkRevoked},
		"signed":           {append(begun, &tokenv1.LinkSigned{}), first, ada, noon, failure.LinkSigned},
		"signed, long ago": {append(begun, &tokenv1.LinkSigned{}), first, ada, expiry.Add(day), failure.LinkSigned},
		"declined":         {append(begun, &tokenv1.LinkDeclined{}), first, ada, noon, failure.LinkDeclined},
		"cancelled":        {append(begun, &tokenv1.LinkClosed{}), first, ada, noon, failure.LinkCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			refusedAs(t, rules.CheckToken(link(tt.given), tt.hash, tt.browser, tt.at), tt.want, 0)
		})
	}
}

// TestSessionEnd is spec 2.4: min(expiry + grace, the session's own end).
func TestSessionEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		from time.Time
		want time.Time
	}{
		"its own end":        {noon, noon.Add(session)},
		"its own, in grace":  {expiry.Add(-10 * time.Minute), expiry.Add(10 * time.Minute)},
		"both at once":       {expiry.Add(-5 * time.Minute), expiry.Add(grace)},
		"grace comes first":  {expiry.Add(-5*time.Minute + ms), expiry.Add(grace)},
		"begun at the last":  {expiry.Add(-ms), expiry.Add(grace)},
		"no session, no end": {time.Time{}, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			given := out()
			if !tt.from.IsZero() {
				given = append(given, redeemed(ada, tt.from))
			}
			if got := rules.SessionEnd(link(given)); !got.Equal(tt.want) {
				t.Errorf("session ends %s, want %s", got, tt.want)
			}
		})
	}
}

func TestCheckSession(t *testing.T) {
	begun := out(redeemed(ada, noon))
	for name, tt := range map[string]struct {
		given   facts
		browser []byte
		at      time.Time
		want    *failure.Error
	}{
		"of no link":                {nil, ada, noon, failure.LinkUnknown},
		"not begun":                 {out(), ada, noon, failure.SessionUnknown},
		"not begun in time":         {out(), ada, expiry, failure.LinkExpired},
		"goes on":                   {begun, ada, noon.Add(session - ms), nil},
		"ends":                      {begun, ada, noon.Add(session), failure.SessionExpired},
		"elsewhere":                 {begun, bob, noon, failure.LinkUsed},
		"elsewhere, nobody's":       {begun, nil, noon, failure.LinkUsed},
		"elsewhere, after expiry":   {begun, bob, expiry, failure.LinkExpired},
		"after expiry and its end":  {begun, ada, expiry, failure.LinkExpired},
		"replaced by another":       {append(begun, &tokenv1.LinkResumed{Session: sessionOf("ses_2", bob, noon)}), ada, noon, failure.LinkUsed},
		"rotated away":              {append(begun, reissued(1, noon)), ada, noon, failure.SessionUnknown},
		"withdrawn":                 {append(begun, &tokenv1.LinkRevoked{}), ada, noon, failure.LinkRevoked},
		"after the signature":       {append(begun, &tokenv1.LinkSigned{}), ada, noon, failure.LinkSigned},
		"after the refusal to sign": {append(begun, &tokenv1.LinkDeclined{}), ada, noon, failure.LinkDeclined},
		"after the request is over": {append(begun, &tokenv1.LinkClosed{}), ada, noon, failure.LinkCancelled},
		"of a link closed unissued": {facts{&tokenv1.LinkClosed{}}, ada, noon, failure.LinkCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			refusedAs(t, rules.CheckSession(link(tt.given), tt.browser, tt.at), tt.want, 0)
		})
	}
}

// TestHeldBy: whose session it was is known after a signature and a refusal to sign, for the page that says so.
func TestHeldBy(t *testing.T) {
	begun := out(redeemed(ada, noon))
	for name, tt := range map[string]struct {
		given   facts
		browser []byte
		want    bool
	}{
		"no session":    {out(), ada, false},
		"no browser":    {begun, nil, false},
		"this browser":  {begun, ada, true},
		"another":       {begun, bob, false},
		"signed here":   {append(begun, &tokenv1.LinkSigned{}), ada, true},
		"declined here": {append(begun, &tokenv1.LinkDeclined{}), ada, true},
		"rotated":       {append(begun, reissued(1, noon)), ada, false},
	} {
		if got := rules.HeldBy(link(tt.given), tt.browser); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

func TestDeadline(t *testing.T) {
	for name, tt := range map[string]struct {
		given facts
		want  time.Time
	}{
		"never issued":                   {nil, time.Time{}},
		"the message is not out":         {facts{issued(), minted(1, first, expiry)}, time.Time{}},
		"the message is out":             {out(), expiry},
		"a session that ends before":     {out(redeemed(ada, noon)), expiry},
		"a session that ends in grace":   {out(redeemed(ada, expiry.Add(-ms))), expiry.Add(grace)},
		"a session before the clock ran": {facts{issued(), minted(1, first, expiry), redeemed(ada, noon)}, expiry},
		"a signature that is being made": {out(redeemed(ada, expiry.Add(-ms)), admitted(expiry.Add(grace-ms))), expiry.Add(grace - ms + rules.AdmissionHold)},
		"a signature long before":        {out(redeemed(ada, noon), admitted(noon)), expiry},
		"lapsed":                         {out(&tokenv1.LinkLapsed{}), time.Time{}},
		"lapsed, then a new one is out":  {out(&tokenv1.LinkLapsed{}, reissued(1, noon), minted(2, second, expiry), started(2)), expiry},
		"rotated, not out yet":           {out(reissued(1, noon)), time.Time{}},
		"withdrawn":                      {out(&tokenv1.LinkRevoked{}), time.Time{}},
		"signed":                         {out(redeemed(ada, noon), &tokenv1.LinkSigned{}), time.Time{}},
		"closed":                         {out(&tokenv1.LinkClosed{}), time.Time{}},
	} {
		if got := rules.Deadline(link(tt.given)); !got.Equal(tt.want) {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// TestNextGeneration: what a rotation leaves behind is nothing of the generation before but the hashes, for words.
func TestNextGeneration(t *testing.T) {
	for name, rotate := range map[string]proto.Message{"reissue": reissued(1, noon), "reroute": rerouted(1, noon)} {
		l := link(out(redeemed(ada, noon), admitted(noon.Add(-day)), &tokenv1.LinkLapsed{}, &tokenv1.LinkRevoked{Reason: tokenv1.EndReason_END_REASON_PLATFORM}, rotate))
		if l.GetStatus() != tokenv1.LinkStatus_LINK_STATUS_OPEN || l.GetGeneration() != 2 || l.GetSession() != nil || l.GetAdmission() != nil ||
			l.GetClockStarted() || l.GetLapsed() || l.GetEndReason() != 0 || len(l.GetTokens()) != 1 {
			t.Errorf("%s leaves %v", name, l)
		}
	}
}

// TestEvolveIgnoresWhatItDoesNotKnow: a fact of a newer release changes nothing.
func TestEvolveIgnoresWhatItDoesNotKnow(t *testing.T) {
	l := link(out())
	if got := rules.EvolveLink(proto.CloneOf(l), timestamppb.New(noon)); !proto.Equal(got, l) {
		t.Errorf("changed to %v", got)
	}
	r := &tokenv1.Request{Id: "req_1"}
	if got := rules.EvolveRequest(proto.CloneOf(r), timestamppb.New(noon)); !proto.Equal(got, r) {
		t.Errorf("changed to %v", got)
	}
}

// TestTokensAreForgotten: of former generations only the newest hashes are kept, of the present one all that may live.
func TestTokensAreForgotten(t *testing.T) {
	l := link(facts{issued()})
	for g := uint32(1); g <= 4; g++ {
		for i := range rules.LiveTokens {
			l = rules.EvolveLink(l, minted(g, []byte{byte(g), byte(i)}, expiry))
		}
		for i := range rules.LiveTokens {
			refusedAs(t, rules.CheckToken(l, []byte{byte(g), byte(i)}, ada, noon), nil, 0)
		}
		l = rules.EvolveLink(l, reissued(g, noon))
	}
	if n := len(l.GetTokens()); n != 2*rules.LiveTokens {
		t.Errorf("%d hashes are kept", n)
	}
	refusedAs(t, rules.CheckToken(l, []byte{3, 0}, ada, noon), failure.LinkSuperseded, 0)
	refusedAs(t, rules.CheckToken(l, []byte{2, 0}, ada, noon), failure.LinkUnknown, 0)
}
