package token_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/type/money"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/eventlog/eventlogtest"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/token"
)

const (
	newLinks = signingv1.ProfileReach_PROFILE_REACH_NEW_LINKS
	extend   = signingv1.ProfileReach_PROFILE_REACH_EXTEND_SENT
	allSent  = signingv1.ProfileReach_PROFILE_REACH_ALL_SENT
	day      = 24 * time.Hour
)

// set changes a profile's lifetime as a platform does.
func (w *world) set(name string, lifetime time.Duration, reach signingv1.ProfileReach) *signingv1.SetProfileResponse {
	w.t.Helper()
	answer, err := w.profiles.SetProfile(as(w.t, tenant), &signingv1.SetProfileRequest{Name: name, Lifetime: durationpb.New(lifetime), Reach: reach})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer
}

func (w *world) profile(of, name string) *signingv1.Profile {
	w.t.Helper()
	answer, err := w.profiles.GetProfile(as(w.t, of), &signingv1.GetProfileRequest{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetProfile()
}

// restarted reads files as one more process of the service does when it starts.
func (w *world) restarted(files map[string]string) {
	w.t.Helper()
	if _, err := token.New(w.t.Context(), w.hostWithRedis(), settings(w.t, files)); err != nil {
		w.t.Error(err)
	}
}

func (w *world) hostWithRedis() *host.Host {
	h := w.Host(token.Name)
	h.Redis = w.rdb
	return h
}

func TestProfilesOfATenant(t *testing.T) {
	w := start(t)
	if got := w.profile(tenant, "standard"); got.GetVersion() != 0 || got.GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_BUILT_IN || got.GetLifetime().AsDuration() != 7*day {
		t.Errorf("built in: %v", got)
	}
	if got := w.profile(tenant, "flash"); got.GetVersion() != 1 || got.GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_FILE {
		t.Errorf("of a file: %v", got)
	}
	made := w.set("contract", 10*day, newLinks)
	if p := made.GetProfile(); !made.GetChanged() || p.GetVersion() != 1 || p.GetGrace().AsDuration() != time.Hour || p.GetReminders() != "standard" || p.GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_API || p.GetSetAt() == nil {
		t.Errorf("a new profile begins with the values of standard: %v", made)
	}
	if again := w.set("contract", 10*day, newLinks); again.GetChanged() || again.GetProfile().GetVersion() != 1 {
		t.Errorf("as it is: %v", again)
	}
	w.set("contract", 11*day, newLinks)
	one := uint64(1)
	if got, err := w.profiles.GetProfile(as(t, tenant), &signingv1.GetProfileRequest{Name: "contract", Version: &one}); err != nil || got.GetProfile().GetLifetime().AsDuration() != 10*day {
		t.Errorf("version 1: %v, %v", got, err)
	}
	if _, err := w.profiles.RetireProfile(as(t, tenant), &signingv1.RetireProfileRequest{Name: "contract"}); err != nil {
		t.Fatal(err)
	}
	versions, err := w.profiles.ListProfileVersions(as(t, tenant), &signingv1.ListProfileVersionsRequest{Name: "contract"})
	if all := versions.GetVersions(); err != nil || len(all) != 3 || all[1].GetLifetime().AsDuration() != 11*day || !all[2].GetRetired() || all[2].GetVersion() != 3 {
		t.Errorf("versions %v, %v", all, err)
	}
	_, err = w.profiles.GetProfile(as(t, tenant), &signingv1.GetProfileRequest{Name: "contract"})
	refused(t, err, failure.ProfileUnknown)

	// Another tenant has none of it, and is told the same as of what never was.
	w.set("own", day, newLinks)
	_, err = w.profiles.GetProfile(as(t, "other"), &signingv1.GetProfileRequest{Name: "own"})
	refused(t, err, failure.ProfileUnknown)
	list, err := w.profiles.ListProfiles(as(t, "other"), &signingv1.ListProfilesRequest{})
	if err != nil || len(list.GetProfiles()) != len(config.Default().Base().Profiles) {
		t.Errorf("another tenant lists %v, %v", list, err)
	}
	theirs := lease("theirs")
	theirs.Profile = "own"
	_, err = w.signing.Create(as(t, "other"), &signingv1.CreateRequest{Request: theirs})
	if f := refused(t, err, failure.RequestInvalid); f.Fields[0].Path != "profile" {
		t.Errorf("fields %v", f.Fields)
	}
}

func TestProfilesRefused(t *testing.T) {
	w := start(t)
	seven, many := uint64(7), uint32(2)
	for name, tt := range map[string]struct {
		req  *signingv1.SetProfileRequest
		want *failure.Error
		path string
	}{
		"a name":              {&signingv1.SetProfileRequest{Name: "No Name"}, failure.RequestInvalid, "name"},
		"no lifetime":         {&signingv1.SetProfileRequest{Name: "x", Lifetime: durationpb.New(0)}, failure.RequestInvalid, "lifetime"},
		"more than ten years": {&signingv1.SetProfileRequest{Name: "x", Lifetime: durationpb.New(3651 * day)}, failure.RequestInvalid, "lifetime"},
		"parts of a second":   {&signingv1.SetProfileRequest{Name: "x", Grace: durationpb.New(1500 * time.Millisecond)}, failure.RequestInvalid, "grace"},
		"idle for too long":   {&signingv1.SetProfileRequest{Name: "x", Session: durationpb.New(time.Hour), Idle: durationpb.New(2 * time.Hour)}, failure.RequestInvalid, "idle"},
		"nobody can show it":  {&signingv1.SetProfileRequest{Name: "x", Assurance: &many}, failure.RequestInvalid, "assurance"},
		"no plan":             {&signingv1.SetProfileRequest{Name: "x", Reminders: proto.String("nosuch")}, failure.RequestInvalid, "reminders"},
		"no policy":           {&signingv1.SetProfileRequest{Name: "x", Escalation: proto.String("nosuch")}, failure.RequestInvalid, "escalation"},
		"no reach":            {&signingv1.SetProfileRequest{Name: "x", Reach: 9}, failure.RequestInvalid, "reach"},
		"another version":     {&signingv1.SetProfileRequest{Name: "standard", Lifetime: durationpb.New(day), ExpectedVersion: &seven}, failure.ProfileChanged, ""},
		"only asked, another": {&signingv1.SetProfileRequest{Name: "standard", Lifetime: durationpb.New(day), ExpectedVersion: &seven, DryRun: true}, failure.ProfileChanged, ""},
	} {
		_, err := w.profiles.SetProfile(as(t, tenant), tt.req)
		if f := refused(t, err, tt.want); tt.path != "" && (len(f.Fields) == 0 || f.Fields[0].Path != tt.path) {
			t.Errorf("%s: fields %v", name, f.Fields)
		}
	}
	few := auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "key_2", Tenant: tenant, Kind: auth.Platform, Scopes: []string{auth.RequestsRead, auth.RequestsWrite}}))
	_, err := w.profiles.SetProfile(few, &signingv1.SetProfileRequest{Name: "x", Lifetime: durationpb.New(day)})
	refused(t, err, failure.PermissionDenied)
	_, err = w.profiles.SetProfile(as(t, config.Defaults), &signingv1.SetProfileRequest{Name: "standard", Lifetime: durationpb.New(day)})
	refused(t, err, failure.PermissionDenied)
	if facts := w.Facts(token.Name, "fact.token.*.prf_all"); len(facts) != 1 {
		t.Errorf("%d facts of what was refused", len(facts))
	}
}

func TestOneOfManyProfileChangesWins(t *testing.T) {
	w := start(t)
	zero := uint64(0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won, lost := 0, 0
	for i := range 16 {
		wg.Go(func() {
			_, err := w.profiles.SetProfile(as(t, tenant), &signingv1.SetProfileRequest{Name: "standard", Lifetime: durationpb.New(time.Duration(i+1) * time.Hour), ExpectedVersion: &zero})
			mu.Lock()
			defer mu.Unlock()
			switch f := failure.From(err); {
			case err == nil:
				won++
			case f != nil && errors.Is(f, failure.ProfileChanged):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 15 {
		t.Errorf("%d won, %d were told that somebody was faster", won, lost)
	}
	// Who does not mind the version is never refused for it, and a repeated call is one change.
	for i := range 8 {
		wg.Go(func() {
			_, err := w.profiles.SetProfile(as(t, tenant), &signingv1.SetProfileRequest{Name: fmt.Sprintf("p%d", i%2), Lifetime: durationpb.New(day), IdempotencyKey: fmt.Sprint("k", i%2)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := w.stated("prf_all", "ProfileSet"); n != 3 {
		t.Errorf("%d changes were stated", n)
	}
}

func TestRulesChooseAProfile(t *testing.T) {
	w := start(t)
	w.set("big", 2*day, newLinks)
	rules := []*signingv1.ProfileRule{
		{When: `value.currency_code == "EUR" && value.amount >= 1000`, Use: "big"},
		{When: `template == "lease" && locale.startsWith("de")`, Use: "legal"},
	}
	set, err := w.profiles.SetProfileRules(as(t, tenant), &signingv1.SetProfileRulesRequest{Rules: rules, DefaultProfile: "routine"})
	if err != nil || set.GetRules().GetVersion() != 1 {
		t.Fatalf("%v, %v", set, err)
	}
	for want, r := range map[string]*signingv1.SigningRequest{
		"big":     {Value: &money.Money{CurrencyCode: "EUR", Units: 1000}},
		"legal":   {Value: &money.Money{CurrencyCode: "EUR", Units: 999}, Signers: []*signingv1.Signer{{Locale: "de-CH"}}},
		"routine": {Signers: []*signingv1.Signer{{Locale: "fr"}}},
	} {
		request := lease("by-rule-" + want)
		request.Profile, request.Value = "", r.GetValue()
		if len(r.GetSigners()) > 0 {
			request.Signers[0].Locale = r.GetSigners()[0].GetLocale()
		}
		made := w.create(request)
		if made.GetProfile() != want {
			t.Errorf("%s gets %s", want, made.GetProfile())
		}
		chosen, err := w.profiles.ChooseProfile(as(t, tenant), &signingv1.ChooseProfileRequest{Template: "lease", Value: r.GetValue(), Locale: request.GetSigners()[0].GetLocale()})
		if err != nil || chosen.GetProfile().GetName() != want || (chosen.GetRule() > 0) != (want != "routine") {
			t.Errorf("asked beforehand: %v, %v", chosen, err)
		}
		// The same request again is the same one, whatever the rules and profiles have become.
		if _, err := w.profiles.SetProfileRules(as(t, tenant), &signingv1.SetProfileRulesRequest{DefaultProfile: "standard"}); err != nil {
			t.Fatal(err)
		}
		if again := w.create(request); again.GetId() != made.GetId() || again.GetProfile() != want {
			t.Errorf("the request again: %v", again)
		}
		if _, err := w.profiles.SetProfileRules(as(t, tenant), &signingv1.SetProfileRulesRequest{Rules: rules, DefaultProfile: "routine"}); err != nil {
			t.Fatal(err)
		}
	}
	named := lease("named")
	named.Profile = "big"
	made := w.create(named)
	_, err = w.profiles.RetireProfile(as(t, tenant), &signingv1.RetireProfileRequest{Name: "big"})
	if f := refused(t, err, failure.ProfileInUse); f.Fields[0].Path != "rules[0].use" {
		t.Errorf("fields %v", f.Fields)
	}
	if _, err := w.profiles.SetProfileRules(as(t, tenant), &signingv1.SetProfileRulesRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.profiles.RetireProfile(as(t, tenant), &signingv1.RetireProfileRequest{Name: "big"}); err != nil {
		t.Fatal(err)
	}
	if again := w.create(named); again.GetId() != made.GetId() {
		t.Errorf("a repeat, whose profile is gone: %v", again)
	}
	for _, when := range []string{`signer == "ada"`, `integration`, `value.amount >`, strings.Repeat("!", 501)} {
		_, err := w.profiles.SetProfileRules(as(t, tenant), &signingv1.SetProfileRulesRequest{Rules: []*signingv1.ProfileRule{{When: "true", Use: "legal"}, {When: when, Use: "legal"}}})
		if f := refused(t, err, failure.RequestInvalid); f.Fields[0].Path != "rules[1].when" {
			t.Errorf("%.20s: fields %v", when, f.Fields)
		}
	}
	_, err = w.profiles.SetProfileRules(as(t, tenant), &signingv1.SetProfileRulesRequest{Rules: []*signingv1.ProfileRule{{When: "true", Use: "high-risk"}}})
	if err != nil {
		t.Fatal(err)
	}
	unnamed := lease("unnamed")
	unnamed.Profile = ""
	_, err = w.signing.Create(as(t, tenant), &signingv1.CreateRequest{Request: unnamed})
	if f := refused(t, err, failure.RequestInvalid); !strings.Contains(f.Fields[0].Problem, "high-risk by rule 1") {
		t.Errorf("fields %v", f.Fields)
	}
}

// TestFilesArePublished: what files give is stated once, and again only when they give something else; what a call changed stands till then.
func TestFilesArePublished(t *testing.T) {
	w := start(t)
	published := func() int { return len(w.Facts(token.Name, "fact.token.*.prf_all")) }
	w.restarted(map[string]string{tenant: profiles})
	if n := published(); n != 1 {
		t.Fatalf("%d facts after two starts with the same files", n)
	}
	changed := map[string]string{
		"defaults": "profiles:\n  standard: {lifetime: 9d}\n",
		tenant:     profiles + "  contract: {lifetime: 10d}\n", "other": "default: sales\n",
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { w.restarted(changed) })
	}
	wg.Wait()
	if n := published(); n != 4 {
		t.Errorf("%d facts after four starts at once, want one each of defaults, %s and other", n, tenant)
	}
	if p := w.profile("stranger", "standard"); p.GetLifetime().AsDuration() != 9*day || p.GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_DEFAULTS || p.GetVersion() != 1 {
		t.Errorf("the defaults, at a tenant without a folder: %v", p)
	}
	rules, err := w.profiles.GetProfileRules(as(t, "other"), &signingv1.GetProfileRulesRequest{})
	if err != nil || rules.GetRules().GetDefaultProfile() != "sales" || rules.GetRules().GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_FILE {
		t.Errorf("rules of a file: %v, %v", rules, err)
	}
	w.set("contract", 11*day, newLinks)
	w.restarted(changed)
	if p := w.profile(tenant, "contract"); p.GetLifetime().AsDuration() != 11*day || p.GetVersion() != 2 {
		t.Errorf("what a call changed stands: %v", p)
	}
	changed[tenant] = profiles + "  contract: {lifetime: 12d}\n"
	w.restarted(changed)
	if p := w.profile(tenant, "contract"); p.GetLifetime().AsDuration() != 12*day || p.GetVersion() != 3 || p.GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_FILE {
		t.Errorf("until the file changes: %v", p)
	}
	delete(changed, tenant)
	w.restarted(changed)
	_, err = w.profiles.GetProfile(as(t, tenant), &signingv1.GetProfileRequest{Name: "contract"})
	refused(t, err, failure.ProfileUnknown)
	if _, err := token.New(t.Context(), w.hostWithRedis(), config.Default()); err != nil {
		t.Fatal(err)
	}
	if p := w.profile("stranger", "standard"); p.GetLifetime().AsDuration() != 9*day {
		t.Errorf("a start without files changes nothing: %v", p)
	}
	w.flush()
	if p := w.profile("stranger", "standard"); p.GetLifetime().AsDuration() != 9*day {
		t.Errorf("an empty Redis changes nothing: %v", p)
	}
}

// TestALaterGroupGetsTheNewestVersion: a link copies its profile's values when it is issued.
func TestALaterGroupGetsTheNewestVersion(t *testing.T) {
	w := start(t)
	w.set("contract", 10*day, newLinks)
	request := lease("two-groups")
	request.Profile, request.Signers = "contract", []*signingv1.Signer{person(adaMail, 1), person(graceMail, 2)}
	made := w.create(request)
	first, second := made.GetSigners()[0].GetId(), made.GetSigners()[1].GetId()
	answer := w.set("contract", 3*day, newLinks)
	if answer.GetLiveLinks() != 1 || answer.GetTouchedLinks() != 0 {
		t.Errorf("the change says %v", answer)
	}
	w.settled()
	if p := w.link(first).GetProfile(); p.GetVersion() != 1 || p.GetLifetime().AsDuration() != 10*day || p.GetReminders() != "standard" {
		t.Errorf("a link that was sent: %v", p)
	}
	w.signed(first, made.GetId())
	w.issued(second)
	if p := w.link(second).GetProfile(); p.GetVersion() != 2 || p.GetLifetime().AsDuration() != 3*day {
		t.Errorf("a link that is issued later: %v", p)
	}
}

// TestSentLinks: a change reaches what was sent only where that is asked for, and says beforehand what it would do.
func TestSentLinks(t *testing.T) {
	w := start(t)
	w.set("contract", 10*day, newLinks)
	request := lease("sent")
	request.Profile = "contract"
	made := w.create(request)
	id := made.GetSigners()[0].GetId()
	w.sent(id, made.GetId(), 1)
	eventlogtest.Eventually(t, "its clock has started", func() bool { return w.link(id).GetClockStarted() })
	before := w.link(id).GetExpiresAt().AsTime()

	dry := func(lifetime time.Duration, reach signingv1.ProfileReach) string {
		t.Helper()
		answer, err := w.profiles.SetProfile(as(t, tenant), &signingv1.SetProfileRequest{Name: "contract", Lifetime: durationpb.New(lifetime), Reach: reach, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if p := answer.GetProfile(); answer.GetChanged() && (p.GetSetAt() != nil || p.GetOrigin() != signingv1.ProfileOrigin_PROFILE_ORIGIN_UNSPECIFIED) {
			t.Errorf("asked beforehand, and set by %v at %v", p.GetOrigin(), p.GetSetAt().AsTime())
		}
		return fmt.Sprint(answer.GetChanged(), answer.GetProfile().GetVersion(), answer.GetLiveLinks(), answer.GetTouchedLinks(), answer.GetShortenedLinks())
	}
	for _, asked := range []struct{ got, want string }{
		{dry(time.Hour, newLinks), "true 2 1 0 0"},
		{dry(time.Hour, extend), "true 2 1 0 0"},
		{dry(time.Hour, allSent), "true 2 1 1 1"},
		{dry(11*day, extend), "true 2 1 1 0"},
		{dry(10*day, allSent), "false 1 1 0 0"},
	} {
		if asked.got != asked.want {
			t.Errorf("asked beforehand: %q, want %q", asked.got, asked.want)
		}
	}
	if p := w.profile(tenant, "contract"); p.GetVersion() != 1 {
		t.Fatalf("asking changed it: %v", p)
	}
	reached := func(version uint64, expires time.Time) {
		t.Helper()
		w.settled()
		l := w.link(id)
		if l.GetProfile().GetVersion() != version || !l.GetExpiresAt().AsTime().Equal(expires) {
			t.Errorf("the link has version %d and expires at %v; want %d, %v", l.GetProfile().GetVersion(), l.GetExpiresAt().AsTime(), version, expires)
		}
	}
	w.set("contract", time.Hour, newLinks)
	reached(1, before)
	w.set("contract", 2*time.Hour, extend)
	reached(1, before)
	w.set("contract", 12*day, extend)
	reached(4, before.Add(2*day))
	w.set("contract", 5*day, allSent)
	reached(5, before.Add(-5*day))
	if n := w.stated(id, "LinkReprofiled"); n != 2 {
		t.Errorf("%d times stated", n)
	}

	// One that would have ended before ends now, and its timer knows; from then on no change brings it back.
	if got := w.set("contract", time.Second, allSent); got.GetShortenedLinks() != 1 {
		t.Errorf("the change says %v", got)
	}
	eventlogtest.Eventually(t, "the link has lapsed", func() bool { return w.link(id).GetLapsed() })
	ended := w.link(id).GetExpiresAt().AsTime()
	if got := w.set("contract", 30*day, extend); got.GetLiveLinks() != 0 {
		t.Errorf("the change says %v", got)
	}
	reached(6, ended)
}
