package cli_test

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// profiles answers as Countersign does: sales is built in, contract was changed once, and somebody else changes `busy` between any two
// calls. Three links of each live, of which two are reached and one becomes shorter where all are.
type profiles struct {
	signingv1.UnimplementedProfileServiceServer

	mu    sync.Mutex
	all   map[string]*signingv1.Profile
	rules *signingv1.ProfileRules
}

func newProfiles() *profiles {
	of := func(name string, version uint64, lifetime time.Duration, origin signingv1.ProfileOrigin) *signingv1.Profile {
		p := &signingv1.Profile{
			Name: name, Version: version, Lifetime: durationpb.New(lifetime), Grace: durationpb.New(time.Hour), Session: durationpb.New(time.Hour),
			Idle: durationpb.New(15 * time.Minute), ReissueLimit: 3, ReissueWindow: durationpb.New(24 * time.Hour), Assurance: 1, Reminders: "standard", Escalation: "standard", Origin: origin,
		}
		if version > 0 {
			p.SetAt = ago(2 * time.Hour)
		}
		return p
	}
	return &profiles{
		all: map[string]*signingv1.Profile{
			"sales":    of("sales", 0, 72*time.Hour, signingv1.ProfileOrigin_PROFILE_ORIGIN_BUILT_IN),
			"contract": of("contract", 2, 240*time.Hour, signingv1.ProfileOrigin_PROFILE_ORIGIN_API),
			"busy":     of("busy", 1, time.Hour, signingv1.ProfileOrigin_PROFILE_ORIGIN_FILE),
		},
		rules: &signingv1.ProfileRules{Version: 1, DefaultProfile: "sales", Origin: signingv1.ProfileOrigin_PROFILE_ORIGIN_FILE, Rules: []*signingv1.ProfileRule{{When: `template == "lease"`, Use: "contract"}}},
	}
}

func (p *profiles) ListProfiles(context.Context, *signingv1.ListProfilesRequest) (*signingv1.ListProfilesResponse, error) {
	return &signingv1.ListProfilesResponse{Profiles: []*signingv1.Profile{p.all["contract"], p.all["sales"]}}, nil
}

func (p *profiles) GetProfile(_ context.Context, req *signingv1.GetProfileRequest) (*signingv1.GetProfileResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.all[req.GetName()]
	if got == nil || req.Version != nil && req.GetVersion() > got.GetVersion() {
		return nil, failure.ProfileUnknown
	}
	return &signingv1.GetProfileResponse{Profile: got}, nil
}

func (p *profiles) ListProfileVersions(_ context.Context, req *signingv1.ListProfileVersionsRequest) (*signingv1.ListProfileVersionsResponse, error) {
	return &signingv1.ListProfileVersionsResponse{Versions: []*signingv1.Profile{p.all[req.GetName()]}}, nil
}

func (p *profiles) SetProfile(_ context.Context, req *signingv1.SetProfileRequest) (*signingv1.SetProfileResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.all[req.GetName()]
	switch {
	case req.GetName() == "busy" && !req.GetDryRun(), req.GetExpectedVersion() != old.GetVersion():
		return nil, failure.ProfileChanged
	case req.GetLifetime().AsDuration() > 3650*24*time.Hour:
		return nil, failure.RequestInvalid.WithFields(failure.Field{Path: "lifetime", Problem: "accepted: a duration in whole seconds, from 1s to 3650d"})
	}
	next := newProfiles().all["sales"]
	next.Name, next.Version, next.Origin, next.SetAt = req.GetName(), old.GetVersion()+1, signingv1.ProfileOrigin_PROFILE_ORIGIN_API, ago(0)
	if req.GetLifetime() != nil {
		next.Lifetime = req.GetLifetime()
	}
	if req.GetGrace() != nil {
		next.Grace = req.GetGrace()
	}
	answer := &signingv1.SetProfileResponse{Profile: next, Changed: next.GetLifetime().AsDuration() != old.GetLifetime().AsDuration(), LiveLinks: 3}
	if req.GetReach() > signingv1.ProfileReach_PROFILE_REACH_NEW_LINKS {
		answer.TouchedLinks = 2
	}
	if req.GetReach() == signingv1.ProfileReach_PROFILE_REACH_ALL_SENT {
		answer.ShortenedLinks = 1
	}
	if !req.GetDryRun() {
		p.all[req.GetName()] = next
	}
	return answer, nil
}

func (p *profiles) RetireProfile(_ context.Context, req *signingv1.RetireProfileRequest) (*signingv1.RetireProfileResponse, error) {
	if req.GetName() == "contract" {
		return nil, failure.ProfileInUse.WithFields(failure.Field{Path: "rules[0].use", Problem: "names this profile"})
	}
	return &signingv1.RetireProfileResponse{}, nil
}

func (p *profiles) GetProfileRules(context.Context, *signingv1.GetProfileRulesRequest) (*signingv1.GetProfileRulesResponse, error) {
	return &signingv1.GetProfileRulesResponse{Rules: p.rules}, nil
}

func (p *profiles) SetProfileRules(_ context.Context, req *signingv1.SetProfileRulesRequest) (*signingv1.SetProfileRulesResponse, error) {
	return &signingv1.SetProfileRulesResponse{Rules: &signingv1.ProfileRules{
		Version: req.GetExpectedVersion() + 1, Rules: req.GetRules(), DefaultProfile: req.GetDefaultProfile(), Origin: signingv1.ProfileOrigin_PROFILE_ORIGIN_API,
	}}, nil
}

func (p *profiles) ChooseProfile(_ context.Context, req *signingv1.ChooseProfileRequest) (*signingv1.ChooseProfileResponse, error) {
	if req.GetValue().GetCurrencyCode() == "EUR" && req.GetValue().GetUnits() == 99 && req.GetValue().GetNanos() == 500_000_000 {
		return &signingv1.ChooseProfileResponse{Profile: p.all["contract"], Rule: 1, When: p.rules.GetRules()[0].GetWhen()}, nil
	}
	return &signingv1.ChooseProfileResponse{Profile: p.all["sales"]}, nil
}
