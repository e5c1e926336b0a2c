package token

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// profilesID is the id of a tenant's profiles: one aggregate each, found without an index.
const profilesID = "prf_all"

// settings is what holds for a tenant: its own over those of all tenants over those that are built in.
type settings struct{ own, defaults *tokenv1.Profiles }

// settingsOf reads what holds for a tenant now, as the leader has it: what was changed a moment ago holds.
func (s *Service) settingsOf(ctx context.Context, tenant string) (settings, error) {
	own, _, err := s.profiles.Load(ctx, key(tenant, profilesID))
	if err != nil || tenant == config.Defaults {
		return settings{own: own}, err
	}
	defaults, _, err := s.profiles.Load(ctx, key(config.Defaults, profilesID))
	return settings{own: own, defaults: defaults}, err
}

// builtIn are the profiles that hold where nobody says otherwise, of version 0.
var builtIn = sync.OnceValue(func() map[string]*tokenv1.Profile {
	all := map[string]*tokenv1.Profile{}
	for name, p := range config.Default().Base().Profiles {
		all[name] = profileOf(p)
	}
	return all
})

// inherited returns what holds under a name for a tenant that sets nothing.
func (x settings) inherited(name string) *tokenv1.Profile {
	return rules.HeldProfile(x.defaults, name, builtIn()[name])
}

// inheritedRules returns the rules that hold for a tenant that sets none.
func (x settings) inheritedRules() *tokenv1.ProfileRules {
	return rules.HeldRules(x.defaults, &tokenv1.ProfileRules{DefaultProfile: config.Standard})
}

// profile returns what holds under a name; nil where nothing does.
func (x settings) profile(name string) *tokenv1.Profile {
	return rules.HeldProfile(x.own, name, x.inherited(name))
}

// rules returns the rules that hold.
func (x settings) rules() *tokenv1.ProfileRules { return rules.HeldRules(x.own, x.inheritedRules()) }

// names returns the names that a request may use, sorted.
func (x settings) names() []string { return slices.Compact(slices.Sorted(x.all(x.own))) }

// inheritedNames returns the names of what holds for all tenants, sorted.
func (x settings) inheritedNames() []string { return slices.Compact(slices.Sorted(x.all(nil))) }

func (x settings) all(own *tokenv1.Profiles) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		names := slices.Collect(maps.Keys(builtIn()))
		for _, layer := range []*tokenv1.Profiles{x.defaults, own} {
			for _, e := range layer.GetEntries() {
				if !e.GetRetired() {
					names = append(names, e.GetProfile().GetName())
				}
			}
		}
		for _, n := range names {
			if !yield(n) {
				return
			}
		}
	}
}

// choice is which profile a request gets, and by which rule: 1 is the first, 0 none.
type choice struct {
	profile *tokenv1.Profile
	rule    int
	when    string
}

// choose returns the profile of the first rule that fits, else the default one. A rule whose profile is gone does not fit, and where
// the default one is gone the one that is built in holds: a request is never refused for what its platform did not say.
func (x settings) choose(m config.Match) choice {
	held := x.rules()
	for from := 0; from < len(held.GetRules()); {
		fits := config.Choose(conditions(held.GetRules()[from:]), m)
		if fits < 0 {
			break
		}
		r := held.GetRules()[from+fits]
		from += fits + 1
		if p := x.profile(r.GetUse()); p != nil {
			return choice{p, from, r.GetWhen()}
		}
	}
	p := x.profile(held.GetDefaultProfile())
	if p == nil {
		p = x.profile(config.Standard)
	}
	return choice{profile: p}
}

func conditions(all []*tokenv1.ProfileRule) []config.ProfileRule {
	out := make([]config.ProfileRule, len(all))
	for i, r := range all {
		out[i] = config.ProfileRule{When: r.GetWhen(), Use: r.GetUse()}
	}
	return out
}

// forRequest returns the profile that a request gets: the one it names, else the one that the rules give it. The problem is for its
// field `profile`; empty where there is none.
func (x settings) forRequest(r *signingv1.SigningRequest) (*tokenv1.Profile, string) {
	if name := r.GetProfile(); name != "" {
		p := x.profile(name)
		if p == nil {
			return nil, "is no expiration profile of this tenant; it has " + strings.Join(x.names(), ", ")
		}
		if p.GetAssurance() > highestAssurance {
			return nil, fmt.Sprintf("asks for assurance %d; the ways of verifying which exist here reach %d", p.GetAssurance(), highestAssurance)
		}
		return p, ""
	}
	m := config.Match{Integration: r.GetIntegration(), Template: r.GetTemplate()}
	if len(r.GetSigners()) > 0 {
		m.Locale = r.GetSigners()[0].GetLocale()
	}
	if v := r.GetValue(); v != nil {
		m.Value = &config.Value{CurrencyCode: v.GetCurrencyCode(), Units: v.GetUnits(), Nanos: v.GetNanos()}
	}
	c := x.choose(m)
	if c.profile.GetAssurance() > highestAssurance {
		by := "is the default, " + c.profile.GetName()
		if c.rule > 0 {
			by = fmt.Sprintf("is %s by rule %d", c.profile.GetName(), c.rule)
		}
		return nil, fmt.Sprintf("%s, which asks for assurance %d; the ways of verifying which exist here reach %d", by, c.profile.GetAssurance(), highestAssurance)
	}
	return c.profile, ""
}

// newest returns the profile that a link of a request gets which is issued now: the newest version of the one that the request was
// accepted with. One that is gone, or that asks for more than a signer can show here, leaves it as it was: nobody is stranded by it.
func (x settings) newest(accepted *tokenv1.Profile) *tokenv1.Profile {
	p := x.profile(accepted.GetName())
	if p == nil || p.GetAssurance() > max(highestAssurance, accepted.GetAssurance()) {
		return accepted
	}
	return p
}

// profileOf returns a profile of the settings as facts have it.
func profileOf(p config.Profile) *tokenv1.Profile {
	return &tokenv1.Profile{
		Name: p.Name, Lifetime: durationpb.New(p.Lifetime.Std()), Grace: durationpb.New(p.Grace.Std()), Session: durationpb.New(p.Session.Std()),
		ReissueLimit: uint32(p.ReissueLimit), ReissueWindow: durationpb.New(p.ReissueWindow.Std()), Assurance: uint32(p.Assurance),
		Idle: durationpb.New(p.Idle.Std()), Reminders: p.Reminders, Escalation: p.Escalation, AutomaticReissue: p.AutomaticReissue,
	}
}

// settingOf is profileOf the other way round, without the version.
func settingOf(p *tokenv1.Profile) config.Profile {
	d := func(d *durationpb.Duration) config.Duration { return config.Duration(d.AsDuration()) }
	return config.Profile{
		Name: p.GetName(), Lifetime: d(p.GetLifetime()), Grace: d(p.GetGrace()), Session: d(p.GetSession()), Idle: d(p.GetIdle()),
		ReissueLimit: int(p.GetReissueLimit()), ReissueWindow: d(p.GetReissueWindow()), AutomaticReissue: p.GetAutomaticReissue(),
		Assurance: int(p.GetAssurance()), Reminders: p.GetReminders(), Escalation: p.GetEscalation(),
	}
}

// ledgerOf is under what the changes of a tenant's profiles stand in the audit log: a trail of their own.
func (s *Service) ledgerOf(tenant string) string {
	return eventlog.DeriveID(s.h.Keys, "prf", tenant)
}

// publish states what the files of settings changed since they were last read (decisions 27). Of two processes that start at once
// one states it. Without files nothing is changed: what was published stands.
func (s *Service) publish(ctx context.Context) error {
	if !s.tenants.FromFiles() {
		return nil
	}
	if err := s.publishOf(ctx, config.Defaults, s.tenants.Base()); err != nil {
		return err
	}
	tenants := s.tenants.Tenants()
	for _, tenant := range tenants {
		if err := s.publishOf(ctx, tenant, s.tenants.Tenant(tenant)); err != nil {
			return err
		}
	}
	// A folder that was removed gives nothing any more.
	return eventlog.Sweep(ctx, s.profiles, "fact."+Name+".*."+profilesID, profilesID, func(k eventlog.Key, _ *tokenv1.Profiles, _ uint64) error {
		if k.Tenant == config.Defaults || slices.Contains(tenants, k.Tenant) {
			return nil
		}
		return s.publishOf(ctx, k.Tenant, config.Tenant{})
	})
}

func (s *Service) publishOf(ctx context.Context, tenant string, t config.Tenant) error {
	x, err := s.settingsOf(ctx, tenant)
	if err != nil {
		return err
	}
	command := rules.Publish{Inherited: map[string]uint64{}}
	for _, name := range t.Gives() {
		command.Profiles = append(command.Profiles, profileOf(t.Profiles[name]))
	}
	for _, name := range x.inheritedNames() {
		command.Inherited[name] = x.inherited(name).GetVersion()
	}
	if t.GivesRules() {
		command.Rules = &tokenv1.ProfileRules{DefaultProfile: t.DefaultProfile}
		for _, r := range t.Rules {
			command.Rules.Rules = append(command.Rules.Rules, &tokenv1.ProfileRule{When: r.When, Use: r.Use})
		}
		command.InheritedRules = x.inheritedRules().GetVersion()
	}
	by := eventlog.By{Actor: &recordv1.Actor{Kind: recordv1.ActorKind_ACTOR_KIND_SYSTEM, Ref: Name}, RequestID: s.ledgerOf(tenant)}
	res, err := s.profiles.Do(ctx, key(tenant, profilesID), command, by)
	if err != nil {
		return fmt.Errorf("token: publish the settings of %s: %w", tenant, err)
	}
	if f, ok := res.Fact.(*tokenv1.ProfilesPublished); ok {
		s.h.Logger.InfoContext(ctx, "expiration profiles were taken from files", "tenant", tenant, "changed", len(f.GetEntries()), "withdrawn", len(f.GetWithdrawn()), "rules", f.GetRules() != nil)
	}
	return nil
}

// onProfileSet gives links that were sent the new values, where that was asked for. Told twice, it changes nothing more.
func (s *Service) onProfileSet(ctx context.Context, e eventlog.Event, f *tokenv1.ProfileSet) error {
	return s.reprofile(ctx, e, rules.Reprofile{Profile: f.GetProfile(), Reach: f.GetReach()})
}

func (s *Service) reprofile(ctx context.Context, e eventlog.Event, c rules.Reprofile) error {
	if c.Reach != tokenv1.ProfileReach_PROFILE_REACH_EXTEND_SENT && c.Reach != tokenv1.ProfileReach_PROFILE_REACH_ALL_SENT {
		return nil
	}
	var failed error
	err := s.sweepLinks(ctx, e.Key.Tenant, c.Profile.GetName(), func(k eventlog.Key, l *tokenv1.Link) error {
		by := e.By(Name, "reprofile")
		by.RequestID = l.GetRequestId()
		if _, err := s.links.Do(ctx, k, c, by); err != nil {
			failed = errors.Join(failed, err) // one that is held keeps none of the others
		}
		return nil
	})
	return errors.Join(failed, err)
}

// sweepLinks calls visit with the links of a tenant that were issued by a profile and live.
func (s *Service) sweepLinks(ctx context.Context, tenant, profile string, visit func(k eventlog.Key, l *tokenv1.Link) error) error {
	now := s.h.Clock.Now(tenant)
	return eventlog.Sweep(ctx, s.links, "fact."+Name+"."+tenant+".*", linkPrefix, func(k eventlog.Key, l *tokenv1.Link, _ uint64) error {
		if l.GetProfile().GetName() != profile || !rules.Live(l, now) {
			return nil
		}
		return visit(k, l)
	})
}

// impact is how many links a change meets.
type impact struct{ live, touched, shortened uint64 }

// impactOf counts, from the record, what a change would do.
func (s *Service) impactOf(ctx context.Context, tenant string, c rules.Reprofile) (impact, error) {
	var n impact
	now := s.h.Clock.Now(tenant)
	err := s.sweepLinks(ctx, tenant, c.Profile.GetName(), func(_ eventlog.Key, l *tokenv1.Link) error {
		n.live++
		fact, err := c.Decide(l, now)
		if failure.From(err) != nil {
			n.touched++ // a signature is being made on it: it follows after
		}
		if f, ok := fact.(*tokenv1.LinkReprofiled); ok {
			n.touched++
			if rules.Shortens(l, f) {
				n.shortened++
			}
		}
		return nil
	})
	return n, err
}

// originOf says who set what holds: at is nil for what is built in.
func originOf(o tokenv1.ProfileOrigin, own bool, at *timestamppb.Timestamp) signingv1.ProfileOrigin {
	switch {
	case at == nil:
		return signingv1.ProfileOrigin_PROFILE_ORIGIN_BUILT_IN
	case !own:
		return signingv1.ProfileOrigin_PROFILE_ORIGIN_DEFAULTS
	case o == tokenv1.ProfileOrigin_PROFILE_ORIGIN_API:
		return signingv1.ProfileOrigin_PROFILE_ORIGIN_API
	default:
		return signingv1.ProfileOrigin_PROFILE_ORIGIN_FILE
	}
}
