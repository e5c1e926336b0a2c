package rules

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// MaxProfiles is how many profiles a tenant may have of its own, so that what is known of them fits one message; as many more may be
// known as retired.
const MaxProfiles = 100

// OwnProfile returns the tenant's own entry of a name, also one that was retired; nil where there never was one.
func OwnProfile(p *tokenv1.Profiles, name string) *tokenv1.ProfileEntry {
	i, ok := findProfile(p.GetEntries(), name)
	if !ok {
		return nil
	}
	return p.GetEntries()[i]
}

func findProfile(entries []*tokenv1.ProfileEntry, name string) (int, bool) {
	return slices.BinarySearchFunc(entries, name, func(e *tokenv1.ProfileEntry, n string) int { return cmp.Compare(e.GetProfile().GetName(), n) })
}

// HeldProfile returns what holds under a name: the tenant's own unless it was retired, else what it inherits; nil where that is nil.
func HeldProfile(p *tokenv1.Profiles, name string, inherited *tokenv1.Profile) *tokenv1.Profile {
	if own := OwnProfile(p, name); own != nil && !own.GetRetired() {
		return own.GetProfile()
	}
	return inherited
}

// HeldRules returns the rules that hold: the tenant's own unless they were withdrawn, else those that it inherits.
func HeldRules(p *tokenv1.Profiles, inherited *tokenv1.ProfileRules) *tokenv1.ProfileRules {
	if own := p.GetRules(); own != nil && !own.GetRetired() {
		return own
	}
	return inherited
}

// Digest identifies the values of a profile, or rules, that a file gives; the version and who set them make no difference.
func Digest(m proto.Message) []byte {
	m = proto.Clone(m)
	switch m := m.(type) {
	case *tokenv1.Profile:
		m.Version = 0
	case *tokenv1.ProfileRules:
		m.Version, m.Origin, m.At, m.FileSha256, m.Retired = 0, 0, nil, nil, false
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // names, numbers and expressions that are valid UTF-8
	}
	sum := sha256.Sum256(body)
	return sum[:]
}

func sameValues(a, b proto.Message) bool { return bytes.Equal(Digest(a), Digest(b)) }

// EvolveProfiles returns a tenant's profiles after fact; it may change p. A fact of a newer release is passed over.
func EvolveProfiles(p *tokenv1.Profiles, fact proto.Message) *tokenv1.Profiles {
	switch f := fact.(type) {
	case *tokenv1.ProfileSet:
		entry := &tokenv1.ProfileEntry{Profile: f.GetProfile(), Origin: tokenv1.ProfileOrigin_PROFILE_ORIGIN_API, At: f.GetAt(), Reach: f.GetReach()}
		entry.FileSha256 = OwnProfile(p, f.GetProfile().GetName()).GetFileSha256()
		putProfile(p, entry)
	case *tokenv1.ProfileRetired:
		retire(p, f.GetName(), f.GetVersion(), f.GetAt())
	case *tokenv1.ProfileRulesSet:
		rules := proto.CloneOf(f.GetRules())
		rules.FileSha256 = p.GetRules().GetFileSha256()
		p.Rules = rules
	case *tokenv1.ProfilesPublished:
		for _, e := range f.GetEntries() {
			putProfile(p, e)
		}
		for _, name := range f.GetWithdrawn() {
			retire(p, name, OwnProfile(p, name).GetProfile().GetVersion()+1, f.GetAt())
			OwnProfile(p, name).FileSha256 = nil
		}
		if f.GetRules() != nil {
			p.Rules = f.GetRules()
		}
	}
	return p
}

func putProfile(p *tokenv1.Profiles, e *tokenv1.ProfileEntry) {
	i, ok := findProfile(p.GetEntries(), e.GetProfile().GetName())
	if ok {
		p.Entries[i] = e
		return
	}
	p.Entries = slices.Insert(p.GetEntries(), i, e)
}

func retire(p *tokenv1.Profiles, name string, version uint64, at *timestamppb.Timestamp) {
	if own := OwnProfile(p, name); own != nil {
		own.Profile.Version, own.Retired, own.At, own.Reach = version, true, at, tokenv1.ProfileReach_PROFILE_REACH_NEW_LINKS
	}
}

// SetProfile makes or changes a tenant's own profile.
type SetProfile struct {
	// Profile has all of its values; its version makes no difference.
	Profile *tokenv1.Profile
	// Inherited is what holds under this name for all tenants; nil where nothing does.
	Inherited *tokenv1.Profile
	// On is the version that the change is made on; 0 where nothing of the name was set.
	On    uint64
	Reach tokenv1.ProfileReach
}

// Decide refuses a change that was made on another version than the one that holds, and one profile too many. What holds already is
// no change.
func (c SetProfile) Decide(p *tokenv1.Profiles, now time.Time) (proto.Message, error) {
	own, held := OwnProfile(p, c.Profile.GetName()), HeldProfile(p, c.Profile.GetName(), c.Inherited)
	if held.GetVersion() != c.On {
		return nil, failure.ProfileChanged
	}
	if held != nil && sameValues(held, c.Profile) {
		return nil, nil
	}
	if own == nil && len(p.GetEntries()) >= 2*MaxProfiles || (own == nil || own.GetRetired()) && live(p) >= MaxProfiles {
		return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "name", Problem: fmt.Sprintf("is one profile too many: a tenant has up to %d of its own", MaxProfiles)})
	}
	next := proto.CloneOf(c.Profile)
	next.Version = max(own.GetProfile().GetVersion(), c.Inherited.GetVersion()) + 1
	return &tokenv1.ProfileSet{Profile: next, Reach: c.Reach, At: timestamppb.New(now)}, nil
}

func live(p *tokenv1.Profiles) int {
	n := 0
	for _, e := range p.GetEntries() {
		if !e.GetRetired() {
			n++
		}
	}
	return n
}

// RetireProfile takes a tenant's own profile back, so that what it inherits under the name holds again, if anything.
type RetireProfile struct {
	Name      string
	Inherited *tokenv1.Profile
	// On is the version that is taken back; nil is whichever is there.
	On *uint64
}

// Decide refuses while a rule of the tenant would lead to nothing.
func (c RetireProfile) Decide(p *tokenv1.Profiles, now time.Time) (proto.Message, error) {
	own := OwnProfile(p, c.Name)
	switch {
	case own == nil && c.Inherited != nil:
		return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "name", Problem: "is a profile of all tenants: it can be changed, but not taken back"})
	case own == nil:
		return nil, failure.ProfileUnknown
	case own.GetRetired():
		return nil, nil
	case c.On != nil && *c.On != own.GetProfile().GetVersion():
		return nil, failure.ProfileChanged
	}
	if uses := usesOf(p, c.Name); c.Inherited == nil && len(uses) > 0 {
		return nil, failure.ProfileInUse.WithFields(uses...)
	}
	return &tokenv1.ProfileRetired{Name: c.Name, Version: own.GetProfile().GetVersion() + 1, At: timestamppb.New(now)}, nil
}

func usesOf(p *tokenv1.Profiles, name string) []failure.Field {
	var uses []failure.Field
	rules := HeldRules(p, nil)
	for i, r := range rules.GetRules() {
		if r.GetUse() == name {
			uses = append(uses, failure.Field{Path: fmt.Sprintf("rules[%d].use", i), Problem: "names this profile"})
		}
	}
	if rules.GetDefaultProfile() == name {
		uses = append(uses, failure.Field{Path: "default_profile", Problem: "names this profile"})
	}
	return uses
}

// SetRules replaces the rules of a tenant as a whole. Their conditions must have been checked.
type SetRules struct {
	Rules []*tokenv1.ProfileRule
	// Default is the profile where none fits; empty is as before.
	Default string
	// Inherited are the rules of all tenants, and Known the names of their profiles.
	Inherited *tokenv1.ProfileRules
	Known     []string
	// On is the version that the change is made on; nil is whichever is there.
	On *uint64
}

// Decide refuses rules that name a profile which is not there.
func (c SetRules) Decide(p *tokenv1.Profiles, now time.Time) (proto.Message, error) {
	held := HeldRules(p, c.Inherited)
	if c.On != nil && *c.On != held.GetVersion() {
		return nil, failure.ProfileChanged
	}
	next := &tokenv1.ProfileRules{
		Rules: c.Rules, DefaultProfile: cmp.Or(c.Default, held.GetDefaultProfile()), Origin: tokenv1.ProfileOrigin_PROFILE_ORIGIN_API,
		Version: max(p.GetRules().GetVersion(), c.Inherited.GetVersion()) + 1, At: timestamppb.New(now),
	}
	var wrong []failure.Field
	known := func(path, name string) {
		if own := OwnProfile(p, name); (own == nil || own.GetRetired()) && !slices.Contains(c.Known, name) {
			wrong = append(wrong, failure.Field{Path: path, Problem: "is no expiration profile of this tenant"})
		}
	}
	for i, r := range c.Rules {
		known(fmt.Sprintf("rules[%d].use", i), r.GetUse())
	}
	known("default_profile", next.GetDefaultProfile())
	if len(wrong) > 0 {
		return nil, failure.RequestInvalid.WithFields(wrong...)
	}
	if held != nil && sameValues(held, next) {
		return nil, nil
	}
	return &tokenv1.ProfileRulesSet{Rules: next}, nil
}

// Publish tells what the files of a tenant's settings give now. A change by a call stands until what the files give is other than
// what they gave before.
type Publish struct {
	Profiles []*tokenv1.Profile
	// Rules are nil where the files give none.
	Rules *tokenv1.ProfileRules
	// Inherited are the versions that hold for all tenants, so that a version is never used for two things.
	Inherited      map[string]uint64
	InheritedRules uint64
}

// Decide states the differences as one fact, and nothing when there are none: of two processes that start, one publishes.
func (c Publish) Decide(p *tokenv1.Profiles, now time.Time) (proto.Message, error) {
	fact := &tokenv1.ProfilesPublished{At: timestamppb.New(now)}
	given := map[string]bool{}
	for _, profile := range c.Profiles {
		given[profile.GetName()] = true
		own, sum := OwnProfile(p, profile.GetName()), Digest(profile)
		if bytes.Equal(own.GetFileSha256(), sum) {
			continue
		}
		next := proto.CloneOf(profile)
		if next.Version = own.GetProfile().GetVersion(); own == nil || own.GetRetired() || !sameValues(own.GetProfile(), profile) {
			next.Version = max(next.GetVersion(), c.Inherited[profile.GetName()]) + 1
		}
		fact.Entries = append(fact.Entries, &tokenv1.ProfileEntry{
			Profile: next, Origin: tokenv1.ProfileOrigin_PROFILE_ORIGIN_FILE, At: fact.GetAt(), FileSha256: sum, Reach: tokenv1.ProfileReach_PROFILE_REACH_NEW_LINKS,
		})
	}
	for _, e := range p.GetEntries() {
		if name := e.GetProfile().GetName(); len(e.GetFileSha256()) > 0 && !given[name] {
			fact.Withdrawn = append(fact.Withdrawn, name)
		}
	}
	fact.Rules = c.rules(p, fact.GetAt())
	if len(fact.GetEntries())+len(fact.GetWithdrawn()) == 0 && fact.GetRules() == nil {
		return nil, nil
	}
	return fact, nil
}

// rules returns the rules as the files change them; nil where they do not.
func (c Publish) rules(p *tokenv1.Profiles, at *timestamppb.Timestamp) *tokenv1.ProfileRules {
	own := p.GetRules()
	version := max(own.GetVersion(), c.InheritedRules) + 1
	if c.Rules == nil {
		if len(own.GetFileSha256()) == 0 {
			return nil
		}
		return &tokenv1.ProfileRules{Version: version, Retired: true, At: at, Origin: tokenv1.ProfileOrigin_PROFILE_ORIGIN_FILE}
	}
	sum := Digest(c.Rules)
	if bytes.Equal(own.GetFileSha256(), sum) {
		return nil
	}
	return &tokenv1.ProfileRules{
		Version: version, Rules: c.Rules.GetRules(), DefaultProfile: c.Rules.GetDefaultProfile(), Origin: tokenv1.ProfileOrigin_PROFILE_ORIGIN_FILE, At: at, FileSha256: sum,
	}
}
