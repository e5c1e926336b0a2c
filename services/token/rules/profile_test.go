package rules_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

const (
	newLinks = tokenv1.ProfileReach_PROFILE_REACH_NEW_LINKS
	extend   = tokenv1.ProfileReach_PROFILE_REACH_EXTEND_SENT
	allSent  = tokenv1.ProfileReach_PROFILE_REACH_ALL_SENT
)

// lasting is a profile of a lifetime, as versions of it differ.
func lasting(name string, lifetime time.Duration, version uint64) *tokenv1.Profile {
	return &tokenv1.Profile{Name: name, Lifetime: durationpb.New(lifetime), Version: version}
}

type profilesCommand interface {
	Decide(p *tokenv1.Profiles, now time.Time) (proto.Message, error)
}

// tenantProfiles follows commands; each of before must be taken.
func tenantProfiles(t interface{ Fatalf(string, ...any) }, before ...profilesCommand) *tokenv1.Profiles {
	p := &tokenv1.Profiles{}
	for _, c := range before {
		fact, err := c.Decide(p, noon)
		if err != nil {
			t.Fatalf("%T: %v", c, err)
		}
		if fact != nil {
			p = rules.EvolveProfiles(proto.CloneOf(p), fact)
		}
	}
	return p
}

func TestSetProfile(t *testing.T) {
	t.Parallel()
	inherited := lasting("sales", 3*day, 4)
	set := func(lifetime time.Duration, on uint64) rules.SetProfile {
		return rules.SetProfile{Profile: lasting("sales", lifetime, 0), Inherited: inherited, On: on, Reach: newLinks}
	}
	file := rules.Publish{Profiles: []*tokenv1.Profile{lasting("sales", day, 0)}, Inherited: map[string]uint64{"sales": 4}}
	own := lasting("own", day, 0)
	for name, tt := range map[string]struct {
		before  []profilesCommand
		command profilesCommand
		version uint64
		refused error
	}{
		"over an inherited one":          {nil, set(time.Hour, 4), 5, nil},
		"what is inherited already":      {nil, set(3*day, 4), 0, nil},
		"the next version":               {[]profilesCommand{set(time.Hour, 4)}, set(2*time.Hour, 5), 6, nil},
		"as it is":                       {[]profilesCommand{set(time.Hour, 4)}, set(time.Hour, 5), 0, nil},
		"somebody else was faster":       {[]profilesCommand{set(time.Hour, 4)}, set(2*time.Hour, 4), 0, failure.ProfileChanged},
		"on nothing, where there is one": {nil, set(time.Hour, 0), 0, failure.ProfileChanged},
		"a new one":                      {nil, rules.SetProfile{Profile: own}, 1, nil},
		"over a file":                    {[]profilesCommand{file}, set(time.Hour, 5), 6, nil},
		"after it was retired": {
			[]profilesCommand{set(time.Hour, 4), rules.RetireProfile{Name: "sales", Inherited: inherited}}, set(time.Hour, 4), 7, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fact, err := tt.command.Decide(tenantProfiles(t, tt.before...), noon)
			f, _ := fact.(*tokenv1.ProfileSet)
			if !errors.Is(err, tt.refused) || f.GetProfile().GetVersion() != tt.version {
				t.Errorf("version %d, error %v; want %d, %v", f.GetProfile().GetVersion(), err, tt.version, tt.refused)
			}
		})
	}
}

func TestOneProfileTooMany(t *testing.T) {
	t.Parallel()
	p := &tokenv1.Profiles{}
	for i := range rules.MaxProfiles {
		fact, err := rules.SetProfile{Profile: lasting(fmt.Sprintf("p%03d", i), day, 0)}.Decide(p, noon)
		if err != nil {
			t.Fatal(err)
		}
		p = rules.EvolveProfiles(p, fact)
	}
	if _, err := (rules.SetProfile{Profile: lasting("zz", day, 0)}).Decide(p, noon); !errors.Is(err, failure.RequestInvalid) {
		t.Errorf("error %v", err)
	}
	if _, err := (rules.SetProfile{Profile: lasting("p007", 2*day, 0), On: 1}).Decide(p, noon); err != nil {
		t.Errorf("one that is there can be changed: %v", err)
	}
}

func TestRetireProfile(t *testing.T) {
	t.Parallel()
	own := rules.SetProfile{Profile: lasting("own", day, 0)}
	sales := rules.SetProfile{Profile: lasting("sales", day, 0), Inherited: lasting("sales", time.Hour, 0)}
	use := func(name string) rules.SetRules {
		return rules.SetRules{Rules: []*tokenv1.ProfileRule{{When: "true", Use: name}}, Default: "standard", Inherited: &tokenv1.ProfileRules{}, Known: []string{"sales", "standard"}}
	}
	two := uint64(2)
	for name, tt := range map[string]struct {
		before  []profilesCommand
		command rules.RetireProfile
		refused error
		states  bool
	}{
		"own":                       {[]profilesCommand{own}, rules.RetireProfile{Name: "own"}, nil, true},
		"again":                     {[]profilesCommand{own, rules.RetireProfile{Name: "own"}}, rules.RetireProfile{Name: "own"}, nil, false},
		"unknown":                   {nil, rules.RetireProfile{Name: "own"}, failure.ProfileUnknown, false},
		"of all tenants":            {nil, rules.RetireProfile{Name: "sales", Inherited: lasting("sales", day, 0)}, failure.RequestInvalid, false},
		"another version":           {[]profilesCommand{own}, rules.RetireProfile{Name: "own", On: &two}, failure.ProfileChanged, false},
		"a rule uses it":            {[]profilesCommand{own, use("own")}, rules.RetireProfile{Name: "own"}, failure.ProfileInUse, false},
		"a rule finds what is left": {[]profilesCommand{sales, use("sales")}, rules.RetireProfile{Name: "sales", Inherited: lasting("sales", time.Hour, 0)}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fact, err := tt.command.Decide(tenantProfiles(t, tt.before...), noon)
			if !errors.Is(err, tt.refused) || (fact != nil) != tt.states {
				t.Errorf("fact %v, error %v; want %v, %v", fact, err, tt.states, tt.refused)
			}
		})
	}
}

func TestSetRules(t *testing.T) {
	t.Parallel()
	inherited := &tokenv1.ProfileRules{DefaultProfile: "standard", Version: 2}
	base := rules.SetRules{Inherited: inherited, Known: []string{"standard", "sales"}}
	with := func(use, byDefault string, on ...uint64) rules.SetRules {
		c := base
		c.Default = byDefault
		if use != "" {
			c.Rules = []*tokenv1.ProfileRule{{When: "true", Use: use}}
		}
		if len(on) > 0 {
			c.On = &on[0]
		}
		return c
	}
	own := rules.SetProfile{Profile: lasting("own", day, 0)}
	for name, tt := range map[string]struct {
		before  []profilesCommand
		command rules.SetRules
		version uint64
		refused error
	}{
		"the first":          {nil, with("sales", "", 2), 3, nil},
		"as they are":        {nil, with("", "", 2), 0, nil},
		"of one's own":       {[]profilesCommand{own}, with("own", "own"), 3, nil},
		"the next":           {[]profilesCommand{with("sales", "")}, with("standard", "sales", 3), 4, nil},
		"of nobody":          {nil, with("nosuch", ""), 0, failure.RequestInvalid},
		"of what is retired": {[]profilesCommand{own, rules.RetireProfile{Name: "own"}}, with("own", ""), 0, failure.RequestInvalid},
		"by default nobody":  {nil, with("", "nosuch"), 0, failure.RequestInvalid},
		"another version":    {[]profilesCommand{with("sales", "")}, with("standard", "", 2), 0, failure.ProfileChanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fact, err := tt.command.Decide(tenantProfiles(t, tt.before...), noon)
			f, _ := fact.(*tokenv1.ProfileRulesSet)
			if !errors.Is(err, tt.refused) || f.GetRules().GetVersion() != tt.version {
				t.Errorf("version %d, error %v; want %d, %v", f.GetRules().GetVersion(), err, tt.version, tt.refused)
			}
		})
	}
}

// TestPublish: files change what they give when they give something else than the last time, and nothing else.
func TestPublish(t *testing.T) {
	t.Parallel()
	gives := func(all ...*tokenv1.Profile) rules.Publish { return rules.Publish{Profiles: all} }
	hour, daily := lasting("sales", time.Hour, 0), lasting("sales", day, 0)
	byCall := rules.SetProfile{Profile: lasting("sales", 2*day, 0), On: 1}
	some := rules.Publish{Rules: &tokenv1.ProfileRules{DefaultProfile: "sales"}}
	changed := rules.SetRules{Default: "own", Known: []string{"own"}}
	for name, tt := range map[string]struct {
		before    []profilesCommand
		command   rules.Publish
		set       uint64 // the version of what is set; 0 = nothing
		withdrawn bool
		rules     uint64
	}{
		"for the first time":             {nil, gives(hour), 1, false, 0},
		"again":                          {[]profilesCommand{gives(hour)}, gives(hour), 0, false, 0},
		"changed":                        {[]profilesCommand{gives(hour)}, gives(daily), 2, false, 0},
		"a call's change stands":         {[]profilesCommand{gives(hour), byCall}, gives(hour), 0, false, 0},
		"until the file changes":         {[]profilesCommand{gives(hour), byCall}, gives(daily), 3, false, 0},
		"to what the call said":          {[]profilesCommand{gives(hour), byCall}, gives(lasting("sales", 2*day, 0)), 2, false, 0},
		"or is taken away":               {[]profilesCommand{gives(hour), byCall}, gives(), 0, true, 0},
		"taken away":                     {[]profilesCommand{gives(hour)}, gives(), 0, true, 0},
		"taken away, again":              {[]profilesCommand{gives(hour), gives()}, gives(), 0, false, 0},
		"back":                           {[]profilesCommand{gives(hour), gives()}, gives(hour), 3, false, 0},
		"what only a call made is left":  {[]profilesCommand{rules.SetProfile{Profile: daily}}, gives(), 0, false, 0},
		"rules":                          {nil, some, 0, false, 1},
		"rules, again":                   {[]profilesCommand{some}, some, 0, false, 0},
		"rules that a call changed":      {[]profilesCommand{some, changed}, some, 0, false, 0},
		"rules that are given no more":   {[]profilesCommand{some}, rules.Publish{}, 0, false, 2},
		"a call's rules, without a file": {[]profilesCommand{changed}, rules.Publish{}, 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := tenantProfiles(t, tt.before...)
			fact, err := tt.command.Decide(p, noon)
			if err != nil {
				t.Fatal(err)
			}
			f, _ := fact.(*tokenv1.ProfilesPublished)
			var set uint64
			for _, e := range f.GetEntries() {
				set = e.GetProfile().GetVersion()
			}
			if set != tt.set || (len(f.GetWithdrawn()) > 0) != tt.withdrawn || f.GetRules().GetVersion() != tt.rules {
				t.Errorf("sets version %d, withdraws %v, rules %d; want %d, %v, %d", set, f.GetWithdrawn(), f.GetRules().GetVersion(), tt.set, tt.withdrawn, tt.rules)
			}
		})
	}
}

// TestProfilesModel: whatever happens in whatever order, versions only rise, what holds is what was said last, and nothing dangles.
func TestProfilesModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := &tokenv1.Profiles{}
		last := map[string]time.Duration{} // what was said last by anybody; absent is retired
		gave := map[string]time.Duration{} // what files gave
		highest := map[string]uint64{}
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		life := rapid.SampledFrom([]time.Duration{time.Hour, day, 2 * day})
		do := func(t *rapid.T, c profilesCommand) error {
			fact, err := c.Decide(p, noon)
			if err == nil && fact != nil {
				p = rules.EvolveProfiles(proto.CloneOf(p), fact)
				again, err := c.Decide(p, noon)
				if again != nil {
					t.Fatalf("%T states the same twice: %v, error %v", c, again, err)
				}
			}
			return err
		}
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				n, l := name.Draw(t, "name"), life.Draw(t, "lifetime")
				on := rules.HeldProfile(p, n, nil).GetVersion() + rapid.Uint64Range(0, 1).Draw(t, "off by")
				if do(t, rules.SetProfile{Profile: lasting(n, l, 0), On: on, Reach: newLinks}) == nil {
					last[n] = l
				}
			},
			"retire": func(t *rapid.T) {
				if n := name.Draw(t, "name"); do(t, rules.RetireProfile{Name: n}) == nil {
					delete(last, n)
				}
			},
			"files": func(t *rapid.T) {
				now := rapid.MapOfN(name, life, 0, 3).Draw(t, "files")
				c := rules.Publish{}
				for n, l := range now {
					c.Profiles = append(c.Profiles, lasting(n, l, 0))
					if gave[n] != l {
						last[n] = l
					}
				}
				for n := range gave {
					if now[n] == 0 {
						delete(last, n)
					}
				}
				gave = now
				if err := do(t, c); err != nil {
					t.Fatal(err)
				}
			},
			"rules": func(t *rapid.T) {
				n := name.Draw(t, "name")
				err := do(t, rules.SetRules{Rules: []*tokenv1.ProfileRule{{When: "true", Use: n}}, Default: "standard", Known: []string{"standard"}})
				if (err == nil) != (last[n] != 0) {
					t.Fatalf("rules that name %s, which has %v: %v", n, last[n], err)
				}
			},
			"": func(t *rapid.T) {
				for _, e := range p.GetEntries() {
					n := e.GetProfile().GetName()
					if e.GetProfile().GetVersion() < highest[n] {
						t.Fatalf("%s went back to version %d", n, e.GetProfile().GetVersion())
					}
					highest[n] = e.GetProfile().GetVersion()
				}
				for _, n := range []string{"a", "b", "c"} {
					if got := rules.HeldProfile(p, n, nil).GetLifetime().AsDuration(); got != last[n] {
						t.Fatalf("%s lasts %v, said was %v", n, got, last[n])
					}
				}
			},
		})
	})
}

func TestReprofile(t *testing.T) {
	t.Parallel()
	old := &tokenv1.Profile{Name: "sales", Version: 1, Lifetime: durationpb.New(2 * day), Grace: durationpb.New(time.Hour), Session: durationpb.New(time.Hour), ReissueLimit: 3, Assurance: 1}
	longer := proto.CloneOf(old)
	longer.Version, longer.Lifetime, longer.Session, longer.ReissueLimit, longer.Assurance = 2, durationpb.New(3*day), durationpb.New(time.Minute), 1, 2
	shorter := proto.CloneOf(old)
	shorter.Version, shorter.Lifetime, shorter.Grace, shorter.Session = 2, durationpb.New(day), durationpb.New(15*time.Minute), durationpb.New(20*time.Minute)
	other := proto.CloneOf(longer)
	other.Name = "legal"
	link := func(status tokenv1.LinkStatus, change ...func(l *tokenv1.Link)) *tokenv1.Link {
		l := &tokenv1.Link{Status: status, Generation: 1, Profile: old, IssuedAt: timestamppb.New(noon), ExpiresAt: timestamppb.New(noon.Add(2 * day)), ClockStarted: true}
		for _, c := range change {
			c(l)
		}
		return l
	}
	open, redeemed := tokenv1.LinkStatus_LINK_STATUS_OPEN, tokenv1.LinkStatus_LINK_STATUS_REDEEMED
	session := func(began time.Time) func(l *tokenv1.Link) {
		return func(l *tokenv1.Link) {
			l.Session = &tokenv1.Session{StartedAt: timestamppb.New(began), EndsAt: timestamppb.New(began.Add(time.Hour))}
		}
	}
	admitted := func(until time.Time) func(l *tokenv1.Link) {
		return func(l *tokenv1.Link) { l.Admission = &tokenv1.Admission{Until: timestamppb.New(until)} }
	}
	late := noon.Add(2*day - time.Minute)
	for name, tt := range map[string]struct {
		link    *tokenv1.Link
		to      *tokenv1.Profile
		reach   tokenv1.ProfileReach
		at      time.Time
		expires time.Duration // after noon; 0 = left alone
		session time.Duration // its end, after noon
		refused error
	}{
		"not asked for":                     {link(open), longer, newLinks, noon, 0, 0, nil},
		"longer":                            {link(open), longer, extend, noon.Add(day), 3 * day, 0, nil},
		"longer, all":                       {link(open), longer, allSent, noon.Add(day), 3 * day, 0, nil},
		"shorter is not longer":             {link(open), shorter, extend, noon, 0, 0, nil},
		"shorter":                           {link(open), shorter, allSent, noon.Add(time.Hour), day, 0, nil},
		"shorter than it has lived":         {link(open), shorter, allSent, noon.Add(36 * time.Hour), 36 * time.Hour, 0, nil},
		"the last instant":                  {link(open), longer, extend, noon.Add(2*day - 1), 3 * day, 0, nil},
		"one that expired stays expired":    {link(open), longer, extend, noon.Add(2 * day), 0, 0, nil},
		"and so for all":                    {link(open), longer, allSent, noon.Add(2 * day), 0, 0, nil},
		"another profile":                   {link(open), other, allSent, noon, 0, 0, nil},
		"this version already":              {link(open, func(l *tokenv1.Link) { l.Profile = longer }), longer, allSent, noon, 0, 0, nil},
		"revoked":                           {link(tokenv1.LinkStatus_LINK_STATUS_REVOKED), longer, extend, noon, 0, 0, nil},
		"signed":                            {link(tokenv1.LinkStatus_LINK_STATUS_SIGNED), longer, extend, noon, 0, 0, nil},
		"never issued":                      {&tokenv1.Link{}, longer, extend, noon, 0, 0, nil},
		"a session keeps its end":           {link(redeemed, session(noon)), longer, allSent, noon, 3 * day, time.Hour, nil},
		"also where the link gets shorter":  {link(redeemed, session(noon.Add(day))), shorter, allSent, noon.Add(day), day + 45*time.Minute, day + time.Hour, nil},
		"a session in grace":                {link(redeemed, session(late)), longer, extend, noon.Add(2*day + time.Minute), 0, 0, nil},
		"while a signature is made":         {link(redeemed, session(noon), admitted(noon.Add(2*time.Minute))), longer, extend, noon, 0, 0, failure.LinkBusy},
		"after it would have been":          {link(redeemed, session(noon), admitted(noon)), longer, extend, noon, 3 * day, time.Hour, nil},
		"an expiry that is not fixed moves": {link(open, func(l *tokenv1.Link) { l.ClockStarted = false }), longer, extend, noon, 3 * day, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fact, err := rules.Reprofile{Profile: tt.to, Reach: tt.reach}.Decide(tt.link, tt.at)
			if !errors.Is(err, tt.refused) {
				t.Fatalf("error %v, want %v", err, tt.refused)
			}
			f, _ := fact.(*tokenv1.LinkReprofiled)
			if (f != nil) != (tt.expires != 0) || f != nil && !f.GetExpiresAt().AsTime().Equal(noon.Add(tt.expires)) {
				t.Fatalf("fact %v, want expiry %v", f, noon.Add(tt.expires))
			}
			if f == nil {
				return
			}
			if (f.GetSessionEndsAt() != nil) != (tt.session != 0) || tt.session != 0 && !f.GetSessionEndsAt().AsTime().Equal(noon.Add(tt.session)) {
				t.Errorf("session ends at %v, want %v", f.GetSessionEndsAt().AsTime(), noon.Add(tt.session))
			}
			after := rules.EvolveLink(proto.CloneOf(tt.link), f)
			if tt.session != 0 && rules.SessionEnd(after).Before(rules.SessionEnd(tt.link)) {
				t.Errorf("the session that is open ends at %v, before %v", rules.SessionEnd(after), rules.SessionEnd(tt.link))
			}
			if tt.reach == extend {
				kept := proto.CloneOf(longer) // the rest of the version is worse for the signer
				kept.Session, kept.ReissueLimit, kept.Assurance = old.GetSession(), 3, 1
				if diff := cmp.Diff(kept, after.GetProfile(), protocmp.Transform()); diff != "" {
					t.Errorf("profile (-want +got)\n%s", diff)
				}
			}
			if again, err := (rules.Reprofile{Profile: tt.to, Reach: tt.reach}).Decide(after, tt.at); again != nil || err != nil {
				t.Errorf("told twice: %v, %v", again, err)
			}
		})
	}
}
