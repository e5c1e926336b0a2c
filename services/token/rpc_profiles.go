package token

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	recordv1 "countersign.dev/proto/countersign/record/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

// profileServer is how a tenant sees and changes its expiration profiles (spec 2.3). Another tenant's are not there.
type profileServer struct {
	signingv1.UnimplementedProfileServiceServer
	s *Service
}

// changer checks that the caller may change the settings of its tenant. Those of all tenants are the operator's, by files alone.
func (p profileServer) changer(ctx context.Context) (string, eventlog.By, error) {
	tenant, by, err := caller(ctx, auth.ConfigWrite)
	if err != nil {
		return "", by, err
	}
	if tenant == config.Defaults {
		return "", by, failure.PermissionDenied
	}
	by.RequestID = p.s.ledgerOf(tenant)
	return tenant, by, nil
}

func (p profileServer) read(ctx context.Context) (settings, string, error) {
	tenant, _, err := caller(ctx, auth.RequestsRead)
	if err != nil {
		return settings{}, "", err
	}
	x, err := p.s.settingsOf(ctx, tenant)
	return x, tenant, err
}

// ListProfiles returns what a request may name.
func (p profileServer) ListProfiles(ctx context.Context, _ *signingv1.ListProfilesRequest) (*signingv1.ListProfilesResponse, error) {
	x, _, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	answer := &signingv1.ListProfilesResponse{}
	for _, name := range x.names() {
		answer.Profiles = append(answer.Profiles, x.view(name))
	}
	return answer, nil
}

// GetProfile returns a profile as it is, or one of the tenant's own versions.
func (p profileServer) GetProfile(ctx context.Context, req *signingv1.GetProfileRequest) (*signingv1.GetProfileResponse, error) {
	x, tenant, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	view := x.view(req.GetName())
	if req.Version == nil || view.GetVersion() == req.GetVersion() {
		if view == nil {
			return nil, failure.ProfileUnknown
		}
		return &signingv1.GetProfileResponse{Profile: view}, nil
	}
	versions, err := p.versions(ctx, tenant, req.GetName())
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if v.GetVersion() == req.GetVersion() {
			return &signingv1.GetProfileResponse{Profile: v}, nil
		}
	}
	return nil, failure.ProfileUnknown
}

// ListProfileVersions returns what the tenant's own profile was. One that the tenant only inherits has the version that holds.
func (p profileServer) ListProfileVersions(ctx context.Context, req *signingv1.ListProfileVersionsRequest) (*signingv1.ListProfileVersionsResponse, error) {
	x, tenant, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	versions, err := p.versions(ctx, tenant, req.GetName())
	if err != nil {
		return nil, err
	}
	if len(versions) == 0 {
		view := x.view(req.GetName())
		if view == nil {
			return nil, failure.ProfileUnknown
		}
		versions = append(versions, view)
	}
	return &signingv1.ListProfileVersionsResponse{Versions: versions}, nil
}

// versions reads the tenant's own versions from the record, oldest first.
func (p profileServer) versions(ctx context.Context, tenant, name string) ([]*signingv1.Profile, error) {
	var out []*signingv1.Profile
	err := p.s.profiles.History(ctx, key(tenant, profilesID), func(state *tokenv1.Profiles, _ *recordv1.Record) error {
		entry := rules.OwnProfile(state, name)
		if entry == nil || len(out) > 0 && out[len(out)-1].GetVersion() == entry.GetProfile().GetVersion() {
			return nil
		}
		out = append(out, entryView(entry, tenant != config.Defaults))
		return nil
	})
	return out, err
}

// tries is how often a change is decided anew where another one came between, and its caller does not mind which version it is made on.
const tries = 10

// SetProfile makes or changes a profile.
func (p profileServer) SetProfile(ctx context.Context, req *signingv1.SetProfileRequest) (*signingv1.SetProfileResponse, error) {
	tenant, by, err := p.changer(ctx)
	if err != nil {
		return nil, err
	}
	c := call{signingv1.ProfileService_SetProfile_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, p.s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.SetProfileResponse, error) {
		for range tries {
			answer, err := p.set(ctx, tenant, req, by)
			if req.ExpectedVersion == nil && errors.Is(err, failure.ProfileChanged) {
				continue
			}
			return answer, err
		}
		return nil, failure.ProfileChanged
	})
}

func (p profileServer) set(ctx context.Context, tenant string, req *signingv1.SetProfileRequest, by eventlog.By) (*signingv1.SetProfileResponse, error) {
	x, err := p.s.settingsOf(ctx, tenant)
	if err != nil {
		return nil, err
	}
	next, err := p.changed(x, tenant, req)
	if err != nil {
		return nil, err
	}
	command := rules.SetProfile{Profile: next, Inherited: x.inherited(req.GetName()), On: x.profile(req.GetName()).GetVersion(), Reach: reachOf(req.GetReach())}
	if req.ExpectedVersion != nil {
		command.On = req.GetExpectedVersion()
	}
	fact, refusal := command.Decide(x.own, p.s.h.Clock.Now(tenant))
	answer := &signingv1.SetProfileResponse{Profile: x.view(req.GetName())}
	set, changes := fact.(*tokenv1.ProfileSet)
	reprofile := rules.Reprofile{Profile: next, Reach: command.Reach}
	if changes {
		reprofile.Profile = set.GetProfile()
	}
	// Counted before anything is done, so that the answer says what the change met.
	n, err := p.s.impactOf(ctx, tenant, reprofile)
	if err != nil {
		return nil, err
	}
	answer.LiveLinks, answer.TouchedLinks, answer.ShortenedLinks = n.live, n.touched, n.shortened
	switch {
	case req.GetDryRun() && refusal != nil:
		return nil, refusal
	case req.GetDryRun() && changes:
		answer.Changed, answer.Profile = true, entryView(&tokenv1.ProfileEntry{Profile: set.GetProfile()}, true)
		answer.Profile.Origin = signingv1.ProfileOrigin_PROFILE_ORIGIN_UNSPECIFIED // nobody has set it
		return answer, nil
	case req.GetDryRun():
		return answer, nil
	}
	res, err := p.s.profiles.Do(ctx, key(tenant, profilesID), command, by)
	if err != nil {
		return nil, err
	}
	x.own = res.State
	answer.Changed, answer.Profile = res.Fact != nil, x.view(req.GetName())
	return answer, nil
}

// changed returns the profile that the call asks for, checked as those of files are.
func (p profileServer) changed(x settings, tenant string, req *signingv1.SetProfileRequest) (*tokenv1.Profile, error) {
	before := x.profile(req.GetName())
	if before == nil {
		before = x.profile(config.Standard)
	}
	change := config.ProfileChange{
		Lifetime: durationOf(req.GetLifetime()), Grace: durationOf(req.GetGrace()), Session: durationOf(req.GetSession()), Idle: durationOf(req.GetIdle()),
		ReissueLimit: intOf(req.ReissueLimit), ReissueWindow: durationOf(req.GetReissueWindow()), AutomaticReissue: req.AutomaticReissue,
		Assurance: intOf(req.Assurance), Reminders: req.Reminders, Escalation: req.Escalation,
	}
	next := change.Apply(settingOf(before))
	next.Name = req.GetName()
	var wrong []failure.Field
	for _, w := range p.s.tenants.Tenant(tenant).CheckProfile(next) {
		wrong = append(wrong, failure.Field{Path: w.Setting, Problem: w.Text})
	}
	if next.Assurance > highestAssurance && req.Assurance != nil {
		wrong = append(wrong, failure.Field{Path: "assurance", Problem: fmt.Sprintf("the ways of verifying which exist here reach %d", highestAssurance)})
	}
	if len(wrong) > 0 {
		return nil, failure.RequestInvalid.WithFields(wrong...)
	}
	return profileOf(next), nil
}

func durationOf(d *durationpb.Duration) *config.Duration {
	if d == nil {
		return nil
	}
	out := config.Duration(d.AsDuration())
	return &out
}

func intOf(n *uint32) *int {
	if n == nil {
		return nil
	}
	out := int(min(*n, 1<<30))
	return &out
}

func reachOf(r signingv1.ProfileReach) tokenv1.ProfileReach {
	switch r {
	case signingv1.ProfileReach_PROFILE_REACH_EXTEND_SENT:
		return tokenv1.ProfileReach_PROFILE_REACH_EXTEND_SENT
	case signingv1.ProfileReach_PROFILE_REACH_ALL_SENT:
		return tokenv1.ProfileReach_PROFILE_REACH_ALL_SENT
	default:
		return tokenv1.ProfileReach_PROFILE_REACH_NEW_LINKS
	}
}

// RetireProfile takes the tenant's own profile back.
func (p profileServer) RetireProfile(ctx context.Context, req *signingv1.RetireProfileRequest) (*signingv1.RetireProfileResponse, error) {
	tenant, by, err := p.changer(ctx)
	if err != nil {
		return nil, err
	}
	c := call{signingv1.ProfileService_RetireProfile_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, p.s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.RetireProfileResponse, error) {
		x, err := p.s.settingsOf(ctx, tenant)
		if err != nil {
			return nil, err
		}
		command := rules.RetireProfile{Name: req.GetName(), Inherited: x.inherited(req.GetName()), On: req.ExpectedVersion}
		res, err := p.s.profiles.Do(ctx, key(tenant, profilesID), command, by)
		if err != nil {
			return nil, err
		}
		x.own = res.State
		return &signingv1.RetireProfileResponse{Profile: x.view(req.GetName())}, nil
	})
}

// GetProfileRules returns the rules that hold.
func (p profileServer) GetProfileRules(ctx context.Context, _ *signingv1.GetProfileRulesRequest) (*signingv1.GetProfileRulesResponse, error) {
	x, _, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	return &signingv1.GetProfileRulesResponse{Rules: x.rulesView()}, nil
}

// SetProfileRules replaces the rules.
func (p profileServer) SetProfileRules(ctx context.Context, req *signingv1.SetProfileRulesRequest) (*signingv1.SetProfileRulesResponse, error) {
	tenant, by, err := p.changer(ctx)
	if err != nil {
		return nil, err
	}
	var wrong []failure.Field
	var next []*tokenv1.ProfileRule
	for i, r := range req.GetRules() {
		if _, err := config.ParseCondition(r.GetWhen()); err != nil {
			wrong = append(wrong, failure.Field{Path: fmt.Sprintf("rules[%d].when", i), Problem: err.Error()})
		}
		next = append(next, &tokenv1.ProfileRule{When: r.GetWhen(), Use: r.GetUse()})
	}
	if len(wrong) > 0 {
		return nil, failure.RequestInvalid.WithFields(wrong...)
	}
	c := call{signingv1.ProfileService_SetProfileRules_FullMethodName, req.GetIdempotencyKey(), req}
	return once(ctx, p.s, tenant, c, by, func(ctx context.Context, by eventlog.By) (*signingv1.SetProfileRulesResponse, error) {
		x, err := p.s.settingsOf(ctx, tenant)
		if err != nil {
			return nil, err
		}
		command := rules.SetRules{Rules: next, Default: req.GetDefaultProfile(), Inherited: x.inheritedRules(), Known: x.inheritedNames(), On: req.ExpectedVersion}
		res, err := p.s.profiles.Do(ctx, key(tenant, profilesID), command, by)
		if err != nil {
			return nil, err
		}
		x.own = res.State
		return &signingv1.SetProfileRulesResponse{Rules: x.rulesView()}, nil
	})
}

// ChooseProfile says what a request like this would get.
func (p profileServer) ChooseProfile(ctx context.Context, req *signingv1.ChooseProfileRequest) (*signingv1.ChooseProfileResponse, error) {
	x, _, err := p.read(ctx)
	if err != nil {
		return nil, err
	}
	m := config.Match{Integration: req.GetIntegration(), Template: req.GetTemplate(), Locale: req.GetLocale()}
	if v := req.GetValue(); v != nil {
		m.Value = &config.Value{CurrencyCode: v.GetCurrencyCode(), Units: v.GetUnits(), Nanos: v.GetNanos()}
	}
	c := x.choose(m)
	return &signingv1.ChooseProfileResponse{Profile: x.view(c.profile.GetName()), Rule: uint32(c.rule), When: c.when, RulesVersion: x.rules().GetVersion()}, nil
}

// view is what holds under a name as its tenant sees it; nil where nothing does.
func (x settings) view(name string) *signingv1.Profile {
	for i, layer := range []*tokenv1.Profiles{x.own, x.defaults} {
		if e := rules.OwnProfile(layer, name); e != nil && !e.GetRetired() {
			return entryView(e, i == 0)
		}
	}
	if slices.Contains(x.names(), name) {
		return entryView(&tokenv1.ProfileEntry{Profile: x.profile(name)}, false)
	}
	return nil
}

func entryView(e *tokenv1.ProfileEntry, own bool) *signingv1.Profile {
	p := e.GetProfile()
	return &signingv1.Profile{
		Name: p.GetName(), Version: p.GetVersion(), Lifetime: p.GetLifetime(), Grace: p.GetGrace(), Session: p.GetSession(), Idle: p.GetIdle(),
		ReissueLimit: p.GetReissueLimit(), ReissueWindow: p.GetReissueWindow(), AutomaticReissue: p.GetAutomaticReissue(), Assurance: p.GetAssurance(),
		Reminders: p.GetReminders(), Escalation: p.GetEscalation(), Origin: originOf(e.GetOrigin(), own, e.GetAt()), SetAt: e.GetAt(), Retired: e.GetRetired(),
	}
}

func (x settings) rulesView() *signingv1.ProfileRules {
	held := x.rules()
	own := x.own.GetRules() != nil && !x.own.GetRules().GetRetired()
	view := &signingv1.ProfileRules{Version: held.GetVersion(), DefaultProfile: held.GetDefaultProfile(), Origin: originOf(held.GetOrigin(), own, held.GetAt()), SetAt: held.GetAt()}
	for _, r := range held.GetRules() {
		view.Rules = append(view.Rules, &signingv1.ProfileRule{When: r.GetWhen(), Use: r.GetUse()})
	}
	return view
}
