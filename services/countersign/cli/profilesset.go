package cli

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// ProfilesSetCmd makes or changes profiles.
type ProfilesSetCmd struct {
	Client `embed:""`

	Name             string           `arg:"" optional:"" help:"The profile: up to 64 lower-case letters, digits and -."`
	File             string           `help:"Take profiles from this file, in the form of profiles.yaml: the one named, or all of them." type:"existingfile" placeholder:"FILE"`
	Lifetime         *config.Duration `help:"How long a link opens, from when its message is out." placeholder:"72h"`
	Grace            *config.Duration `help:"How long after that a session begun in time may finish." placeholder:"1h"`
	Session          *config.Duration `help:"How long a session may last." placeholder:"1h"`
	Idle             *config.Duration `help:"How long a session may do nothing." placeholder:"15m"`
	ReissueLimit     *int             `help:"New links a signer may ask for within --reissue-window." name:"reissue-limit" placeholder:"N"`
	ReissueWindow    *config.Duration `help:"See --reissue-limit." name:"reissue-window" placeholder:"24h"`
	AutomaticReissue *bool            `help:"Replace a lapsed link without being asked." name:"automatic-reissue" negatable:""`
	Assurance        *int             `help:"Level a signer must reach before signing, 0 to 4." placeholder:"N"`
	Reminders        *string          `help:"Reminder plan." placeholder:"NAME"`
	Escalation       *string          `help:"Escalation policy." placeholder:"NAME"`
	Reach            string           `help:"What it does to links that were sent: new-links leaves them alone, extend-sent gives it to those that live longer by it, all-sent to all, also where they become shorter." enum:"new-links,extend-sent,all-sent" default:"new-links"`
	DryRun           bool             `help:"Only say what it would do." name:"dry-run"`
}

// Help teaches by examples.
func (c *ProfilesSetCmd) Help() string {
	return `What is not given stays; a new profile begins with the values of standard. It is said first how many links live that were issued by the
profile, and what becomes of them; where somebody else changes the profile meanwhile, nothing is changed.

Examples:
  countersign profiles set contract --lifetime 10d --grace 2h
  countersign profiles set contract --lifetime 14d --reach extend-sent --dry-run
  countersign profiles set --file profiles.yaml`
}

// Run says what it will do, and does it.
func (c *ProfilesSetCmd) Run(ctx context.Context, io *IO) error {
	changes, err := c.changes()
	if err != nil {
		return err
	}
	reach := map[string]signingv1.ProfileReach{
		"new-links": signingv1.ProfileReach_PROFILE_REACH_NEW_LINKS, "extend-sent": signingv1.ProfileReach_PROFILE_REACH_EXTEND_SENT,
		"all-sent": signingv1.ProfileReach_PROFILE_REACH_ALL_SENT,
	}[c.Reach]
	return c.withProfiles(ctx, func(ctx context.Context, client signingv1.ProfileServiceClient) error {
		for _, name := range slices.Sorted(maps.Keys(changes)) {
			req := setRequest(name, changes[name])
			req.Reach = reach
			if err := c.set(ctx, io, client, req); err != nil {
				return err
			}
		}
		return nil
	})
}

// changes are what the command line says, over what the file says, by name.
func (c *ProfilesSetCmd) changes() (map[string]config.ProfileChange, error) {
	given := config.ProfileChange{
		Lifetime: c.Lifetime, Grace: c.Grace, Session: c.Session, Idle: c.Idle, ReissueLimit: c.ReissueLimit, ReissueWindow: c.ReissueWindow,
		AutomaticReissue: c.AutomaticReissue, Assurance: c.Assurance, Reminders: c.Reminders, Escalation: c.Escalation,
	}
	for _, n := range []*int{c.ReissueLimit, c.Assurance} {
		if n != nil && *n < 0 {
			return nil, usage("give 0 or more", "--reissue-limit and --assurance are no negative numbers")
		}
	}
	if c.File == "" {
		if c.Name == "" {
			return nil, usage("for example: countersign profiles set contract --lifetime 10d", "say which profile, or give --file")
		}
		return map[string]config.ProfileChange{c.Name: given}, nil
	}
	if given != (config.ProfileChange{}) {
		return nil, usage("leave out --file, or the others", "--file says what the profiles are; no other setting goes with it")
	}
	f, err := readProfiles(c.File)
	if err != nil {
		return nil, err
	}
	if c.Name == "" {
		if len(f.Profiles) == 0 {
			return nil, usage("give profiles, as docs/configuration.md shows", "%s holds no profiles", c.File)
		}
		return f.Profiles, nil
	}
	change, there := f.Profiles[c.Name]
	if !there {
		return nil, usage("name one that the file has", "%s holds no profile %q", c.File, c.Name)
	}
	return map[string]config.ProfileChange{c.Name: change}, nil
}

// set asks what a change would do, says so, and has it done on the version that was asked about.
func (c *ProfilesSetCmd) set(ctx context.Context, io *IO, client signingv1.ProfileServiceClient, req *signingv1.SetProfileRequest) error {
	asked := proto.CloneOf(req)
	asked.DryRun = true
	now, err := client.GetProfile(ctx, &signingv1.GetProfileRequest{Name: req.GetName()})
	if f := failure.From(err); err != nil && (f == nil || !f.Is(failure.ProfileUnknown)) {
		return err
	}
	version := now.GetProfile().GetVersion()
	asked.ExpectedVersion, req.ExpectedVersion = &version, &version
	would, err := client.SetProfile(ctx, asked)
	if err != nil {
		return err
	}
	if !c.JSON {
		c.foretell(io, would)
	}
	if c.DryRun || !would.GetChanged() {
		if c.JSON {
			return io.line(would)
		}
		tellProfile(io, would.GetProfile())
		return nil
	}
	answer, err := client.SetProfile(ctx, req)
	if err != nil {
		return err
	}
	if c.JSON {
		return io.line(answer)
	}
	tellProfile(io, answer.GetProfile())
	return nil
}

// foretell says what a change meets, before it is made.
func (c *ProfilesSetCmd) foretell(io *IO, would *signingv1.SetProfileResponse) {
	if !would.GetChanged() {
		io.note("%s is as it was asked for: nothing changes.\n", clean(would.GetProfile().GetName()))
		return
	}
	io.note("%s of %s: the change meets %s", count(int(would.GetLiveLinks()), "live link", "live links"), clean(would.GetProfile().GetName()),
		count(int(would.GetTouchedLinks()), "of them", "of them"))
	switch shortened := would.GetShortenedLinks(); {
	case shortened > 0:
		io.note(", and %s shorter by it.\n", count(int(shortened), "becomes", "become"))
	case would.GetTouchedLinks() == 0:
		io.note("; they keep what they were sent with.\n")
	default:
		io.note(", and none becomes shorter.\n")
	}
}

func setRequest(name string, f config.ProfileChange) *signingv1.SetProfileRequest {
	d := func(d *config.Duration) *durationpb.Duration {
		if d == nil {
			return nil
		}
		return durationpb.New(d.Std())
	}
	n := func(n *int) *uint32 {
		if n == nil {
			return nil
		}
		out := uint32(*n)
		return &out
	}
	return &signingv1.SetProfileRequest{
		Name: name, Lifetime: d(f.Lifetime), Grace: d(f.Grace), Session: d(f.Session), Idle: d(f.Idle), ReissueLimit: n(f.ReissueLimit),
		ReissueWindow: d(f.ReissueWindow), AutomaticReissue: f.AutomaticReissue, Assurance: n(f.Assurance), Reminders: f.Reminders, Escalation: f.Escalation,
	}
}
