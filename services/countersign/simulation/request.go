package simulation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	escalationv1 "countersign.dev/proto/countersign/escalation/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	ceremonyrules "countersign.dev/services/ceremony/rules"
	deliveryrules "countersign.dev/services/delivery/rules"
	escalationrules "countersign.dev/services/escalation/rules"
	identityrules "countersign.dev/services/identity/rules"
	reminderrules "countersign.dev/services/reminder/rules"
	tokenrules "countersign.dev/services/token/rules"
)

// The aggregates of all services.
var (
	requests      = family[*tokenv1.Request]{"token", tokenrules.EvolveRequest}
	links         = family[*tokenv1.Link]{"token", tokenrules.EvolveLink}
	deliveries    = family[*deliveryv1.Delivery]{"delivery", deliveryrules.Evolve}
	verifications = family[*identityv1.Verification]{"identity", identityrules.Evolve}
	ceremonies    = family[*ceremonyv1.Ceremony]{"ceremony", ceremonyrules.Evolve}
	plans         = family[*reminderv1.Plan]{"reminder", reminderrules.Evolve}
	escalations   = family[*escalationv1.Escalation]{"escalation", escalationrules.Evolve}
)

// request is one signing request with everything that follows from it.
type request struct {
	id      string
	tenant  string
	asked   *tokenv1.Request
	people  map[string]*person
	order   []*person // in the order in which they were made
	minutes bool      // its life is short

	policy     reminderrules.Policy
	escalation map[escalationv1.Trigger]escalationrules.Policy

	entries map[string]*entry
	known   []string // names of entries, in the order in which they were made
	timers  map[string]timer
	armed   uint64
	told    map[string]bool
	outcome []string
	leaves  [][]byte

	waiting int // for so many things that will happen
	trail   []*event
	seen    observed
	retired bool
}

func (r *request) entry(service, id string) *entry {
	k := service + "/" + id
	e, there := r.entries[k]
	if !there {
		e = &entry{}
		r.entries[k] = e
		r.known = append(r.known, k)
	}
	return e
}

// profile draws one of the expiration profiles of spec 2.3, or one whose life is watched in minutes.
func (w *world) profile() (p *tokenv1.Profile, minutes bool) {
	of := func(name string, lifetime, grace, session time.Duration, assurance uint32) *tokenv1.Profile {
		return &tokenv1.Profile{
			Name: name, Lifetime: durationpb.New(lifetime), Grace: durationpb.New(grace), Session: durationpb.New(session),
			ReissueLimit: 3, ReissueWindow: durationpb.New(day), Assurance: assurance, AutomaticReissue: w.oneIn(4),
		}
	}
	const m, h = time.Minute, time.Hour
	switch w.rng.IntN(6) {
	case 0:
		return of("high-risk", h, 15*m, 20*m, 1), false
	case 1:
		return of("sales", 72*h, h, h, 1), false
	case 2:
		return of("standard", 7*day, h, h, 1), false
	case 3:
		return of("legal", 14*day, day, 2*h, 1), false
	case 4:
		return of("routine", 30*day, day, 2*h, 0), false
	default:
		return of("minutes", 10*m, m, 5*m, uint32(w.rng.IntN(2))), true
	}
}

// newRequest has a platform make a request, and itself called again.
func (w *world) newRequest() {
	if w.over() {
		return
	}
	w.made++
	w.in(nil, w.upTo(6*time.Hour), w.newRequest)
	r := &request{
		id: fmt.Sprintf("req_%d", w.made), tenant: "acme", people: map[string]*person{}, entries: map[string]*entry{},
		timers: map[string]timer{}, told: map[string]bool{}, seen: newObserved(),
	}
	profile, minutes := w.profile()
	r.minutes = minutes
	r.asked = &tokenv1.Request{
		Id: r.id, Tenant: r.tenant, Profile: profile, FieldDigests: map[string][]byte{"reference": []byte(r.id), "title": []byte("t")},
		Documents: []*tokenv1.RequestDocument{{Id: "doc_1", ReceivedSha256: revision(r.id, 0), PresentedSha256: revision(r.id, 0), Pages: 1}},
	}
	for i := range 1 + w.rng.IntN(3) {
		link := fmt.Sprintf("lnk_%d", i+1)
		seat := &tokenv1.Seat{LinkId: link, Position: uint32(i + 1), Group: 1 + w.rng.Uint32N(2), PersonId: w.person(r, link, "ada").id}
		for a := range w.rng.IntN(3) {
			seat.AlternateIds = append(seat.AlternateIds, w.person(r, link, fmt.Sprintf("alternate%d", a)).id)
		}
		if w.oneIn(2) {
			seat.ManagerId = w.person(r, link, "manager").id
		}
		r.asked.Seats = append(r.asked.Seats, seat)
	}
	if w.oneIn(5) {
		r.asked.Deadline = timestamppb.New(w.now.Add(w.upTo(2 * profile.GetLifetime().AsDuration())))
	}
	w.policies(r)
	w.platform(r)
}

// policies draws how the request's signers are reminded, and what happens when they do not sign.
func (w *world) policies(r *request) {
	r.policy = reminderrules.Defaults()
	unit := day
	if r.minutes {
		unit = 3 * time.Minute
		r.policy = reminderrules.Policy{
			Offsets: []time.Duration{unit, 2 * unit}, PartialOffsets: []time.Duration{unit / 3, unit}, FinalWait: unit, RotateWithin: unit,
		}
	}
	if w.oneIn(4) {
		r.policy.Quiet, r.policy.MaxPerDay = reminderrules.Quiet{}, 0
	}
	step := func(wait time.Duration, a escalationv1.Action) escalationrules.Step {
		return escalationrules.Step{Wait: wait, Action: a}
	}
	const (
		manager   = escalationv1.Action_ACTION_NOTIFY_MANAGER
		alternate = escalationv1.Action_ACTION_ROUTE_ALTERNATE
		tell      = escalationv1.Action_ACTION_TELL_PLATFORM
		cancel    = escalationv1.Action_ACTION_CANCEL
	)
	of := func(steps ...escalationrules.Step) escalationrules.Policy {
		if w.oneIn(4) {
			steps = append(steps, step(unit, cancel))
		}
		return escalationrules.Policy{Name: "standard", SHA256: []byte("digest"), Steps: steps}
	}
	r.escalation = map[escalationv1.Trigger]escalationrules.Policy{
		escalationv1.Trigger_TRIGGER_REMINDERS_EXHAUSTED: of(step(0, manager), step(unit, alternate), step(unit, tell)),
		escalationv1.Trigger_TRIGGER_LINK_LAPSED:         of(step(0, manager), step(unit, alternate)),
		escalationv1.Trigger_TRIGGER_DELIVERY_FAILED:     of(step(0, tell), step(0, manager), step(unit/24, alternate)),
	}
}
