// Package rules is how a fact becomes a leaf of the audit log (audit.md 1.5.2): a pure translation, from stored bytes alone, so
// that anybody can make the log again from the facts and compare.
//
// Each leaf carries the hash of the leaf before it of the same request: the chain proves integrity and order back to the first,
// and a leaf that says fin proves that nothing was cut off before the request's end.
package rules

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/tlog" // RFC 6962 hashes, kept by the Go team for sum.golang.org
	"google.golang.org/protobuf/proto"

	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// Version is the format of a leaf.
const Version = "cs.leaf.v1"

// MaxLeaf is the most bytes a leaf may have (C2SP entry bundles have 16-bit lengths; ours keep well below).
const MaxLeaf = 16 << 10

// timeLayout has milliseconds: what a person can act in.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Leaf is one entry. The order of its fields is the order of its bytes.
type Leaf struct {
	V     string            `json:"v"`
	EID   string            `json:"eid"` // the fact's CloudEvents id
	Src   string            `json:"src"` // stream and sequence of the fact
	Ten   string            `json:"ten"`
	Req   string            `json:"req"`
	Seq   uint64            `json:"seq"` // 1 is the first of the request
	Prev  string            `json:"prev,omitempty"`
	Type  string            `json:"type"`
	At    string            `json:"at"`  // when it was decided
	Rec   string            `json:"rec"` // when the log took it
	Actor Actor             `json:"actor"`
	Sess  string            `json:"sess,omitempty"`
	Auth  *Auth             `json:"auth,omitempty"`
	Doc   *Doc              `json:"doc,omitempty"`
	Link  *Link             `json:"link,omitempty"`
	Com   map[string]string `json:"com,omitempty"`   // salted commitments; never the values
	Notes map[string]string `json:"notes,omitempty"` // vault ids of the words that are committed to
	Info  map[string]string `json:"info,omitempty"`
	Svc   string            `json:"svc"`
	Trace string            `json:"trace,omitempty"`
	Out   Out               `json:"out"`
	Fin   bool              `json:"fin"`
}

// Actor is who did it, by reference.
type Actor struct {
	Kind string `json:"kind"`
	Ref  string `json:"ref,omitempty"`
}

// Auth is what was asked of somebody's identity, and what was proved.
type Auth struct {
	Req     uint32   `json:"req"`
	Got     uint32   `json:"got"`
	Methods []string `json:"methods,omitempty"`
	Ev      []string `json:"ev,omitempty"`
}

// Doc is which bytes an act was about, by their SHA-256.
type Doc struct {
	ID        string   `json:"id,omitempty"`
	Presented string   `json:"presented,omitempty"`
	Result    string   `json:"result,omitempty"`
	Fields    []string `json:"fields,omitempty"`
	Intent    string   `json:"intent,omitempty"`
}

// Link is which link, and how it stood.
type Link struct {
	ID    string `json:"id,omitempty"`
	Gen   uint32 `json:"gen,omitempty"`
	Exp   string `json:"exp,omitempty"`
	Grace bool   `json:"grace,omitempty"`
}

// Out is how it went.
type Out struct {
	Code string `json:"code"`
}

// Source is a fact as the audit service heard it.
type Source struct {
	EventID  string // ce-id
	Stream   string
	Sequence uint64
	Service  string
	Tenant   string
	ID       string // of the aggregate
	Record   *recordv1.Record
	Fact     proto.Message
	Trace    string // trace id, hexadecimal
}

// Tail is the newest leaf of a request: what the next one follows.
type Tail struct {
	Seq uint64
	Raw []byte
}

// Next returns the bytes of the leaf that follows tail for a fact; now is when the log takes it.
func Next(src Source, tail Tail, now time.Time) ([]byte, error) {
	l := Leaf{
		V: Version, EID: src.EventID, Src: fmt.Sprintf("%s:%d", src.Stream, src.Sequence), Ten: src.Tenant, Req: src.Record.GetRequestId(),
		Seq: tail.Seq + 1, Type: typeOf(src), At: stamp(src.Record.GetAt().AsTime()), Rec: stamp(now),
		Actor: actorOf(src.Record.GetActor()), Svc: "countersign/" + src.Service, Trace: src.Trace, Out: Out{Code: "ok"},
	}
	if tail.Seq > 0 {
		l.Prev = Hash(tail.Raw)
	}
	describe(&l, src)
	raw, err := encode(l)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxLeaf {
		return nil, fmt.Errorf("rules: a leaf of %d bytes is too long", len(raw))
	}
	return raw, nil
}

// encode writes one line, with characters as they are: these very bytes are hashed, stored and exported, and never made again.
func encode(l Leaf) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("rules: encode leaf: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Parse reads a leaf.
func Parse(raw []byte) (Leaf, error) {
	var l Leaf
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, fmt.Errorf("rules: leaf: %w", err)
	}
	if l.V != Version {
		return l, fmt.Errorf("rules: leaf of version %q", l.V)
	}
	return l, nil
}

// Hash returns the RFC 6962 hash of a leaf in hexadecimal.
func Hash(raw []byte) string {
	h := tlog.RecordHash(raw)
	return hex.EncodeToString(h[:])
}

// CheckChain says what is wrong with the leaves of a request, in order; nil when each follows the one before.
func CheckChain(leaves [][]byte) error {
	var before []byte
	for i, raw := range leaves {
		l, err := Parse(raw)
		if err != nil {
			return fmt.Errorf("leaf %d: %w", i+1, err)
		}
		if l.Seq != uint64(i+1) {
			return fmt.Errorf("leaf %d says it is %d", i+1, l.Seq)
		}
		want := ""
		if i > 0 {
			want = Hash(before)
		}
		if l.Prev != want {
			return fmt.Errorf("leaf %d does not follow the one before it", i+1)
		}
		before = raw
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(timeLayout) }

func actorOf(a *recordv1.Actor) Actor {
	kind := strings.ToLower(strings.TrimPrefix(a.GetKind().String(), "ACTOR_KIND_"))
	if a.GetKind() == recordv1.ActorKind_ACTOR_KIND_UNSPECIFIED {
		kind = "system"
	}
	return Actor{Kind: kind, Ref: a.GetRef()}
}

// types is the log's own vocabulary (audit.md 1.3). A fact that is not in it stands under its service and its own name.
var types = map[string]string{
	"RequestAccepted": "cs.request.created", "RequestProgressed": "cs.request.progressed", "RequestCompleted": "cs.request.completed",
	"RequestDeclined": "cs.request.declined", "RequestCancelled": "cs.request.cancelled",
	"RequestAmended": "cs.request.amended", "RequestExpired": "cs.request.expired", "RequestErased": "cs.pii.erased",
	"LinkIssued": "cs.link.issued", "LinkMinted": "cs.link.minted", "LinkClockStarted": "cs.link.delivered", "LinkRedeemed": "cs.link.redeemed",
	"LinkResumed": "cs.session.resumed", "LinkReissued": "cs.link.reissued", "LinkRerouted": "cs.link.rerouted", "LinkAdmitted": "cs.link.admitted",
	"LinkSigned": "cs.link.signed", "LinkDeclined": "cs.link.declined", "LinkRevoked": "cs.link.revoked", "LinkClosed": "cs.link.closed",
	"LinkLapsed": "cs.link.soft_expired", "LinkDenied": "cs.link.denied", "LinkReprofiled": "cs.link.reprofiled",
	"LinkDeadlineMoved": "cs.link.deadline_moved", "LinkAttention": "cs.link.attention",
	"ProfileSet": "cs.profile.set", "ProfileRetired": "cs.profile.retired", "ProfileRulesSet": "cs.profile.rules_set", "ProfilesPublished": "cs.profile.published",
	"DeliveryPlanned": "cs.delivery.planned", "AttemptAccepted": "cs.delivery.accepted", "AttemptDeferred": "cs.delivery.deferred",
	"AttemptBounced": "cs.delivery.bounced", "DeliveryFailed": "cs.delivery.failed", "DeliverySkipped": "cs.delivery.skipped",
	"ChallengeStarted": "cs.identity.challenged", "AnswerRefused": "cs.identity.failed", "VerificationPassed": "cs.identity.verified",
	"CeremonyPrepared": "cs.document.prepared", "DocumentShown": "cs.document.rendered", "ConsentGiven": "cs.consent.given",
	"CeremonySigned": "cs.signature.applied", "CeremonyDeclined": "cs.signature.declined",
	"ReminderPlanned": "cs.reminder.scheduled", "ReminderDue": "cs.reminder.due", "RemindersStopped": "cs.reminder.stopped",
	"EscalationTriggered": "cs.escalation.triggered", "ManagerNotified": "cs.escalation.manager_notified", "AlternateRouted": "cs.escalation.alternate_routed",
	"EscalationFinished": "cs.escalation.completed", "EscalationResolved": "cs.escalation.resolved",
}

func typeOf(src Source) string {
	name := string(src.Fact.ProtoReflect().Descriptor().Name())
	if t, ok := types[name]; ok {
		return t
	}
	return "cs." + src.Service + "." + snake(name)
}

func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func digest(sum []byte) string {
	if len(sum) == 0 {
		return ""
	}
	return "sha256:" + hex.EncodeToString(sum)
}

// describe adds what the fact's kind has to say.
func describe(l *Leaf, src Source) {
	switch f := src.Fact.(type) {
	case *tokenv1.RequestAccepted:
		r := f.GetRequest()
		l.Info, l.Com = map[string]string{"profile": r.GetProfile().GetName(), "profile_version": fmt.Sprint(r.GetProfile().GetVersion()), "signers": fmt.Sprint(len(r.GetSeats()))}, map[string]string{}
		for _, d := range r.GetDocuments() {
			l.Doc = &Doc{ID: d.GetId(), Presented: digest(d.GetPresentedSha256())}
		}
		for _, s := range r.GetSeats() {
			for field, c := range s.GetCommitments() {
				l.Com[fmt.Sprintf("%s.%d", field, s.GetPosition())] = hex.EncodeToString(c)
			}
		}
	case *tokenv1.RequestCompleted, *tokenv1.RequestDeclined, *tokenv1.RequestCancelled, *tokenv1.RequestExpired:
		l.Fin = true
	case *tokenv1.RequestAmended:
		describeAmendment(l, f)
	case *tokenv1.RequestErased:
		describeErasure(l, f)
	case *ceremonyv1.DocumentShown:
		l.Sess, l.Doc, l.Link = f.GetSessionId(), &Doc{Presented: digest(f.GetDocumentSha256())}, &Link{ID: f.GetLinkId()}
	case *ceremonyv1.ConsentGiven:
		c := f.GetConsent()
		l.Sess, l.Link = f.GetSessionId(), &Link{ID: f.GetLinkId()}
		l.Info = map[string]string{"disclosure": c.GetDisclosureId(), "version": c.GetVersion(), "locale": c.GetLocale(), "text": digest(c.GetTextSha256())}
	case *ceremonyv1.CeremonySigned:
		describeSignature(l, f)
	case *ceremonyv1.CeremonyDeclined:
		l.Sess, l.Link = f.GetSessionId(), &Link{ID: f.GetLinkId()}
	case *identityv1.ChallengeStarted:
		l.Link, l.Info = &Link{ID: f.GetLinkId()}, map[string]string{"method": methodName(f.GetChallenge().GetMethod()), "purpose": purposeName(f.GetChallenge().GetPurpose())}
	case *identityv1.AnswerRefused:
		l.Link, l.Out.Code = &Link{ID: f.GetLinkId()}, "CODE_WRONG"
	case *identityv1.VerificationPassed:
		e := f.GetEvidence()
		l.Link, l.Auth = &Link{ID: f.GetLinkId()}, &Auth{Got: e.GetLevel(), Methods: []string{methodName(e.GetMethod())}, Ev: []string{e.GetId()}}
	case *tokenv1.ProfileSet:
		p := f.GetProfile()
		l.Info = map[string]string{
			"profile": p.GetName(), "version": fmt.Sprint(p.GetVersion()), "lifetime": p.GetLifetime().AsDuration().String(), "grace": p.GetGrace().AsDuration().String(),
			"reach": strings.ToLower(strings.TrimPrefix(f.GetReach().String(), "PROFILE_REACH_")),
		}
	case *tokenv1.ProfileRetired:
		l.Info = map[string]string{"profile": f.GetName(), "version": fmt.Sprint(f.GetVersion())}
	case *tokenv1.ProfileRulesSet:
		l.Info = map[string]string{"version": fmt.Sprint(f.GetRules().GetVersion()), "default": f.GetRules().GetDefaultProfile(), "rules": fmt.Sprint(len(f.GetRules().GetRules()))}
	default:
		describeLink(l, src)
		describeDelivery(l, src)
		describeReminder(l, src)
		describeEscalation(l, src)
	}
}

func describeSignature(l *Leaf, f *ceremonyv1.CeremonySigned) {
	l.Sess = f.GetSessionId()
	l.Auth = &Auth{Req: f.GetRequiredLevel(), Got: f.GetAchievedLevel()}
	if f.GetVerificationId() != "" {
		l.Auth.Ev = []string{f.GetVerificationId()}
	}
	l.Doc = &Doc{
		ID: f.GetDocumentId(), Presented: digest(f.GetBeforeSha256()), Result: digest(f.GetAfterSha256()),
		Fields: []string{f.GetField()}, Intent: digest(f.GetIntentSha256()),
	}
	l.Link = &Link{ID: f.GetLinkId(), Grace: f.GetGrace()}
	l.Com = map[string]string{}
	for field, c := range f.GetCommitments() {
		l.Com[field] = hex.EncodeToString(c)
	}
	l.Notes = f.GetNoteIds()
}

// describeAmendment adds what was changed: of people the commitments to what holds from now on.
func describeAmendment(l *Leaf, f *tokenv1.RequestAmended) {
	l.Info, l.Com = map[string]string{"number": fmt.Sprint(f.GetNumber())}, map[string]string{}
	if f.GetDeadline() != nil {
		l.Info["deadline"] = stamp(f.GetDeadline().AsTime())
	}
	if f.GetPrivateId() != "" {
		l.Info["words"] = "changed"
	}
	for _, s := range f.GetSeats() {
		if s.GetGroup() != 0 {
			l.Info[fmt.Sprintf("group.%d", s.GetPosition())] = fmt.Sprint(s.GetGroup())
		}
		for field, c := range s.GetCommitments() {
			l.Com[fmt.Sprintf("%s.%d", field, s.GetPosition())] = hex.EncodeToString(c)
		}
	}
	if f.GetReasonId() != "" {
		l.Notes = map[string]string{"reason": f.GetReasonId()}
	}
}

// describeErasure adds whose data it was, and what for.
func describeErasure(l *Leaf, f *tokenv1.RequestErased) {
	l.Info = map[string]string{"what": "request"}
	if f.GetLinkId() != "" {
		l.Info["what"], l.Link = "signer", &Link{ID: f.GetLinkId()}
	}
	if f.GetBasis() != "" {
		l.Info["basis"] = f.GetBasis()
	}
}

// describeLink adds how a link stood after one of its own facts.
func describeLink(l *Leaf, src Source) {
	link := &tokenv1.Link{}
	if src.Record.GetState().UnmarshalTo(link) != nil {
		return
	}
	l.Link = &Link{ID: src.ID, Gen: link.GetGeneration(), Exp: stamp(link.GetExpiresAt().AsTime())}
	switch f := src.Fact.(type) {
	case *tokenv1.LinkRedeemed:
		l.Sess = f.GetSession().GetId()
	case *tokenv1.LinkResumed:
		l.Sess = f.GetSession().GetId()
	case *tokenv1.LinkReissued:
		l.Info = map[string]string{"from_gen": fmt.Sprint(f.GetFromGeneration()), "reason": strings.ToLower(strings.TrimPrefix(f.GetReason().String(), "REISSUE_REASON_"))}
		if f.GetReasonId() != "" {
			l.Notes = map[string]string{"reason": f.GetReasonId()}
		}
	case *tokenv1.LinkRevoked:
		if f.GetReasonId() != "" {
			l.Notes = map[string]string{"reason": f.GetReasonId()}
		}
	case *tokenv1.LinkDenied:
		l.Out.Code = f.GetCode()
	case *tokenv1.LinkReprofiled:
		l.Info = map[string]string{"profile": f.GetProfile().GetName(), "version": fmt.Sprint(f.GetProfile().GetVersion())}
	case *tokenv1.LinkAdmitted:
		l.Sess, l.Link.Grace = f.GetSessionId(), f.GetGrace()
	}
}

func methodName(m identityv1.Method) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(m.String(), "METHOD_")), "_", ":")
}

func purposeName(p identityv1.Purpose) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PURPOSE_"))
}

func kindName(k deliveryv1.Kind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "KIND_"))
}
