package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/type/money"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/config"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// ProfilesCmd shows and changes expiration profiles.
type ProfilesCmd struct {
	List     ProfilesListCmd     `cmd:"" help:"List the profiles that a request may name."`
	Show     ProfilesShowCmd     `cmd:"" help:"Show a profile, as it is or as it was."`
	Set      ProfilesSetCmd      `cmd:"" help:"Make or change a profile; says first how many links that meets."`
	Retire   ProfilesRetireCmd   `cmd:"" help:"Take a profile of one's own back."`
	Versions ProfilesVersionsCmd `cmd:"" help:"Show what a profile was, oldest first."`
	Rules    ProfilesRulesCmd    `cmd:"" help:"Show, or replace, which profile a request gets that names none."`
	Choose   ProfilesChooseCmd   `cmd:"" help:"Say which profile a request like this would get, and by which rule."`
}

// ProfilesListCmd lists profiles.
type ProfilesListCmd struct {
	Client `embed:""`
}

// Run lists them by name.
func (c *ProfilesListCmd) Run(ctx context.Context, io *IO) error {
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		answer, err := client.ListProfiles(ctx, &signingv1.ListProfilesRequest{})
		if err != nil {
			return err
		}
		return c.tellProfiles(io, "NAME", answer.GetProfiles())
	})
}

// tellProfiles prints a table, led by the name or the version, or a line of JSON each.
func (c Client) tellProfiles(io *IO, lead string, all []*signingv1.Profile) error {
	rows := [][]string{{lead, "LIFETIME", "GRACE", "SESSION", "IDLE", "REISSUES", "AUTOMATIC", "ASSURANCE", "REMINDERS", "ESCALATION", "BY"}}
	for _, p := range all {
		if c.JSON {
			if err := io.line(p); err != nil {
				return err
			}
			continue
		}
		first := p.GetName()
		if lead == "VERSION" {
			first = strconv.FormatUint(p.GetVersion(), 10)
		}
		by := profileOrigin(p.GetOrigin())
		if p.GetRetired() {
			by += ", retired"
		}
		rows = append(rows, []string{
			first, span(p.GetLifetime()), span(p.GetGrace()), span(p.GetSession()), span(p.GetIdle()),
			fmt.Sprintf("%d in %s", p.GetReissueLimit(), span(p.GetReissueWindow())), yesNo(p.GetAutomaticReissue()), strconv.FormatUint(uint64(p.GetAssurance()), 10),
			p.GetReminders(), p.GetEscalation(), by,
		})
	}
	if !c.JSON {
		io.table("", rows)
	}
	return nil
}

func span(d *durationpb.Duration) string { return config.Duration(d.AsDuration()).String() }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func profileOrigin(o signingv1.ProfileOrigin) string { return words(o.String(), "PROFILE_ORIGIN_") }

// ProfilesShowCmd shows one profile.
type ProfilesShowCmd struct {
	Client `embed:""`

	Name    string  `arg:"" help:"The profile."`
	Version *uint64 `help:"As it was in this version." placeholder:"N"`
}

// Run shows it.
func (c *ProfilesShowCmd) Run(ctx context.Context, io *IO) error {
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		answer, err := client.GetProfile(ctx, &signingv1.GetProfileRequest{Name: c.Name, Version: c.Version})
		if err != nil {
			return err
		}
		if c.JSON {
			return io.line(answer.GetProfile())
		}
		tellProfile(io, answer.GetProfile())
		return nil
	})
}

func tellProfile(io *IO, p *signingv1.Profile) {
	by := profileOrigin(p.GetOrigin())
	switch {
	case p.GetOrigin() == signingv1.ProfileOrigin_PROFILE_ORIGIN_UNSPECIFIED:
		by = "nobody yet"
	case p.GetSetAt() != nil:
		by += ", " + io.instant(p.GetSetAt())
	}
	if p.GetRetired() {
		by += " (retired)"
	}
	io.print("%s, version %d\n", clean(p.GetName()), p.GetVersion())
	io.table("  ", [][]string{
		{"lifetime", span(p.GetLifetime())},
		{"grace", span(p.GetGrace())},
		{"session", span(p.GetSession())},
		{"idle", span(p.GetIdle())},
		{"reissues", fmt.Sprintf("%d in %s", p.GetReissueLimit(), span(p.GetReissueWindow()))},
		{"automatic reissue", yesNo(p.GetAutomaticReissue())},
		{"assurance", strconv.FormatUint(uint64(p.GetAssurance()), 10)},
		{"reminders", p.GetReminders()},
		{"escalation", p.GetEscalation()},
		{"set by", by},
	})
}

// ProfilesRetireCmd takes a profile back.
type ProfilesRetireCmd struct {
	Client `embed:""`

	Name string `arg:"" help:"The profile."`
}

// Help teaches by examples.
func (c *ProfilesRetireCmd) Help() string {
	return `Requests that have it keep its values. Where the operator has one of the same name for all tenants, that one holds again. It is refused
while a rule uses it.

Examples:
  countersign profiles retire contract`
}

// Run takes it back.
func (c *ProfilesRetireCmd) Run(ctx context.Context, io *IO) error {
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		answer, err := client.RetireProfile(ctx, &signingv1.RetireProfileRequest{Name: c.Name})
		switch {
		case err != nil:
			return err
		case c.JSON:
			return io.line(answer)
		case answer.GetProfile() == nil:
			io.print("%s is retired.\n", clean(c.Name))
		default:
			io.print("What you set for %s is retired. What holds now:\n\n", clean(c.Name))
			tellProfile(io, answer.GetProfile())
		}
		return nil
	})
}

// ProfilesVersionsCmd shows what a profile was.
type ProfilesVersionsCmd struct {
	Client `embed:""`

	Name string `arg:"" help:"The profile."`
}

// Run shows the tenant's own versions.
func (c *ProfilesVersionsCmd) Run(ctx context.Context, io *IO) error {
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		answer, err := client.ListProfileVersions(ctx, &signingv1.ListProfileVersionsRequest{Name: c.Name})
		if err != nil {
			return err
		}
		return c.tellProfiles(io, "VERSION", answer.GetVersions())
	})
}

// ProfilesRulesCmd shows or replaces the rules.
type ProfilesRulesCmd struct {
	Client `embed:""`

	File string `help:"Replace them with the rules and the default of this file, in the form of profiles.yaml." type:"existingfile" placeholder:"FILE"`
}

// Help teaches by examples.
func (c *ProfilesRulesCmd) Help() string {
	return `The first rule that fits gives a request its profile; where none fits it gets the default one. A rule is an expression of CEL over
integration, template, locale (of the first signer), value.currency_code, value.units and value.amount.

Examples:
  countersign profiles rules
  countersign profiles rules --file profiles.yaml
  countersign profiles choose --template lease --value 12000EUR`
}

// Run shows, after replacing where a file is given.
func (c *ProfilesRulesCmd) Run(ctx context.Context, io *IO) error {
	var next *signingv1.SetProfileRulesRequest
	if c.File != "" {
		f, err := readProfiles(c.File)
		if err != nil {
			return err
		}
		if f.Rules == nil && f.Default == nil {
			return usage("give rules, or a default, as `countersign profiles rules --help` shows", "%s holds no rules", c.File)
		}
		next = rulesOf(f)
	}
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		held, err := client.GetProfileRules(ctx, &signingv1.GetProfileRulesRequest{})
		if err != nil {
			return err
		}
		rules := held.GetRules()
		if next != nil {
			version := rules.GetVersion()
			next.ExpectedVersion = &version
			if next.GetRules() == nil {
				next.Rules = rules.GetRules() // a file that gives the default alone leaves them
			}
			answer, err := client.SetProfileRules(ctx, next)
			if err != nil {
				return err
			}
			rules = answer.GetRules()
		}
		if c.JSON {
			return io.line(rules)
		}
		rows := [][]string{{"RULE", "WHEN", "USE"}}
		for i, r := range rules.GetRules() {
			rows = append(rows, []string{strconv.Itoa(i + 1), r.GetWhen(), r.GetUse()})
		}
		io.table("", append(rows, []string{"else", "", rules.GetDefaultProfile()}))
		io.note("Version %d, set by %s.\n", rules.GetVersion(), profileOrigin(rules.GetOrigin()))
		return nil
	})
}

func rulesOf(f config.ProfilesFile) *signingv1.SetProfileRulesRequest {
	req := &signingv1.SetProfileRulesRequest{}
	if f.Default != nil {
		req.DefaultProfile = *f.Default
	}
	if f.Rules != nil {
		req.Rules = []*signingv1.ProfileRule{}
		for _, r := range *f.Rules {
			req.Rules = append(req.Rules, &signingv1.ProfileRule{When: r.When, Use: r.Use})
		}
	}
	return req
}

// readProfiles reads a file in the form of profiles.yaml.
func readProfiles(path string) (config.ProfilesFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return config.ProfilesFile{}, usage("name a file in the form of profiles.yaml", "cannot read the profiles: %v", err)
	}
	defer file.Close()
	text, err := readLimited(file, path, 1<<20)
	if err != nil {
		return config.ProfilesFile{}, err
	}
	f, err := config.ReadProfiles(path, text)
	var wrong config.Problems
	if errors.As(err, &wrong) {
		return f, usage("mend the file; docs/configuration.md shows its form", "%v", err)
	}
	return f, err
}

// ProfilesChooseCmd asks the rules.
type ProfilesChooseCmd struct {
	Client `embed:""`

	Integration string `help:"The request's integration." placeholder:"NAME"`
	Template    string `help:"The request's template." placeholder:"NAME"`
	Locale      string `help:"The first signer's language (BCP 47)." placeholder:"TAG"`
	Value       string `help:"What is at stake, such as 12000EUR or 99.50USD." placeholder:"AMOUNT"`
}

// Run says which profile, and why.
func (c *ProfilesChooseCmd) Run(ctx context.Context, io *IO) error {
	req := &signingv1.ChooseProfileRequest{Integration: c.Integration, Template: c.Template, Locale: c.Locale}
	if c.Value != "" {
		var err error
		if req.Value, err = amount(c.Value); err != nil {
			return err
		}
	}
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		answer, err := client.ChooseProfile(ctx, req)
		switch {
		case err != nil:
			return err
		case c.JSON:
			return io.line(answer)
		case answer.GetRule() == 0:
			io.print("No rule fits: it gets the default.\n\n")
		default:
			io.print("Rule %d fits: %s\n\n", answer.GetRule(), clean(answer.GetWhen()))
		}
		tellProfile(io, answer.GetProfile())
		return nil
	})
}

// amount reads an amount of money, such as 99.50USD.
func amount(text string) (*money.Money, error) {
	wrong := usage("give for example --value 12000EUR", "--value %q is no amount", text)
	digits := strings.TrimRight(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if len(text)-len(digits) != 3 {
		return nil, wrong
	}
	whole, part, _ := strings.Cut(strings.TrimSpace(digits), ".")
	units, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || units < 0 || len(part) > 9 {
		return nil, wrong
	}
	nanos, err := strconv.ParseUint(part+strings.Repeat("0", 9-len(part)), 10, 31)
	if err != nil {
		return nil, wrong
	}
	return &money.Money{CurrencyCode: text[len(digits):], Units: units, Nanos: int32(nanos)}, nil
}
