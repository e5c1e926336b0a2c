// Package gateway is the HTTP edge: the pages that signers see, the deep links that lead to them, and REST for platforms
// (spec 2.7 and 9). It owns nothing and decides nothing: it asks token, identity and ceremony, and shows what they answer.
//
// A link's way, and who is asked:
//
//	GET  /s/{token}                  token.Resolve; shows the page of the link's state, changes nothing
//	POST /s/{token}                  token.Redeem, identity.StartChallenge     -> /sign
//	GET  /sign/{tenant}/{link}       token.GetSession, identity.Check, then the code, the document, or what became of it
//	POST /sign/.../code|resend       identity.Answer, identity.StartChallenge  -> /sign
//	POST /sign/.../sign|decline      ceremony.Sign, ceremony.Decline           -> /sign
//	POST /continue/{tenant}/{link}   a signer whose link or session is over: identity.StartChallenge -> GET, which asks for the code
//	POST /continue/.../code          identity.Answer, token.Continue           -> /sign
//
// Two things keep strangers out of /sign and /continue: the browser's secret, by which token knows whose session it is, and
// that this browser once showed a token of the link (known). Without both, every link is as unknown as one that never was.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/gateway/rest"

	_ "time/tzdata" // a signer's zone is known on every machine, whatever it has installed
)

// Name is the service's name.
const Name = "gateway"

// Config is how the gateway is reached. The zero value listens nowhere; kong fills the defaults.
type Config struct {
	HTTP           string   `help:"Address for signers and for REST." default:"127.0.0.1:8080" env:"COUNTERSIGN_HTTP" name:"http"`
	PublicURL      string   `help:"Where signers reach it, such as https://sign.example.com; needed for addresses beyond this machine." env:"COUNTERSIGN_PUBLIC_URL" name:"public-url"`
	TrustedProxies []string `help:"Networks of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8; none unless told." env:"COUNTERSIGN_TRUSTED_PROXIES" name:"trusted-proxies"`
	APIKeys        string   `help:"File of platforms' API keys; without it only loopback is served, as tenant demo." type:"existingfile" env:"COUNTERSIGN_API_KEYS" name:"api-keys"`

	SecurityContact string `help:"Where to report a weakness, as a mailto: or https: URL; told in /.well-known/security.txt." env:"COUNTERSIGN_SECURITY_CONTACT" name:"security-contact"`
	AppleApps       string `help:"File served as /.well-known/apple-app-site-association (universal links)." type:"existingfile" env:"COUNTERSIGN_APPLE_APPS" name:"apple-apps"`
	AndroidApps     string `help:"File served as /.well-known/assetlinks.json (app links)." type:"existingfile" env:"COUNTERSIGN_ANDROID_APPS" name:"android-apps"`

	host.ClientLimit `embed:""`
}

// settings are a Config made ready.
type settings struct {
	Config
	public  *url.URL // nil: the address listened on, which is loopback then
	proxies []netip.Prefix
}

// Validate names every wrong setting.
func (c Config) Validate() error {
	_, err := c.settings()
	return err
}

func (c Config) settings() (settings, error) {
	s := settings{Config: c}
	var wrong []error
	if err := c.ClientLimit.Validate(); err != nil {
		wrong = append(wrong, err)
	}
	if err := auth.CheckListener(c.HTTP, c.APIKeys != ""); err != nil {
		wrong = append(wrong, err)
	}
	switch u, err := url.Parse(c.PublicURL); {
	case c.PublicURL == "":
		if auth.CheckListener(c.HTTP, false) != nil {
			wrong = append(wrong, errors.New("gateway: --public-url is missing: signers beyond this machine need an https URL"))
		}
	case err != nil, u.Host == "", u.Path != "" && u.Path != "/", u.RawQuery != "", u.User != nil:
		wrong = append(wrong, fmt.Errorf("gateway: --public-url %q is no origin such as https://sign.example.com", c.PublicURL))
	case u.Scheme == "https", u.Scheme == "http" && auth.CheckListener(withPort(u.Host), false) == nil:
		s.public = u
	default:
		wrong = append(wrong, fmt.Errorf("gateway: --public-url %q has to be https: cookies and documents travel over it", c.PublicURL))
	}
	for _, network := range c.TrustedProxies {
		p, err := netip.ParsePrefix(network)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("gateway: --trusted-proxies: %q is no network such as 10.0.0.0/8", network))
			continue
		}
		s.proxies = append(s.proxies, p.Masked())
	}
	if c.SecurityContact != "" && !strings.HasPrefix(c.SecurityContact, "https://") && !strings.HasPrefix(c.SecurityContact, "mailto:") {
		wrong = append(wrong, fmt.Errorf("gateway: --security-contact %q is neither a mailto: nor an https: URL", c.SecurityContact))
	}
	return s, errors.Join(wrong...)
}

func withPort(hostport string) string {
	if u := (&url.URL{Host: hostport}); u.Port() == "" {
		return hostport + ":80"
	}
	return hostport
}

// secure tells whether browsers reach us by https.
func (s settings) secure() bool { return s.public != nil && s.public.Scheme == "https" }

// Service is the gateway. Make one with New; it serves many requests at once.
type Service struct {
	h         *host.Host
	settings  settings
	tenants   *config.Config
	keys      *auth.Keyring // nil without API keys
	admission *host.Admission
	cross     *http.CrossOriginProtection
	wellKnown map[string]document
	rest      http.Handler

	links     tokenv1.LinkServiceClient
	directory tokenv1.DirectoryServiceClient
	identity  identityv1.IdentityServiceClient
	ceremony  ceremonyv1.CeremonyServiceClient
	audit     auditv1.AuditServiceClient

	refusals metric.Int64Counter // pages of refusals, by code
}

// New wires the gateway. It listens nowhere yet, and waits for nobody. tenants says how senders present themselves.
func New(ctx context.Context, h *host.Host, c Config, tenants *config.Config) (*Service, error) {
	ready, err := c.settings()
	if err != nil {
		return nil, err
	}
	s := &Service{h: h, settings: ready, tenants: tenants, cross: http.NewCrossOriginProtection()}
	if s.admission, err = h.Admission(Name); err != nil {
		return nil, err
	}
	if s.wellKnown, err = c.wellKnown(); err != nil {
		return nil, err
	}
	if c.APIKeys != "" {
		if s.keys, err = auth.LoadKeyring(c.APIKeys, h.Keys.Derive("cs.apikey.v1", 32), func() time.Time { return h.Clock.Now("") }); err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
	}
	token, err := s.dial()
	if err != nil {
		return nil, err
	}
	if s.rest, err = rest.New(ctx, token, rest.Options{Log: h.Logger, Admit: s.admission.Client(c.ClientLimit)}); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	meter := h.Telemetry.Meter("countersign.dev/services/gateway")
	s.refusals, err = meter.Int64Counter("countersign.gateway.refusals", metric.WithDescription("Refusals shown to signers, by code."))
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return s, nil
}

// dial makes the clients, and returns the connection to token.
func (s *Service) dial() (*grpc.ClientConn, error) {
	conns := map[string]*grpc.ClientConn{}
	for _, peer := range []string{"token", "identity", "ceremony", "audit"} {
		c, err := s.h.Peers.Dial(peer)
		if err != nil {
			return nil, fmt.Errorf("gateway: dial %s: %w", peer, err)
		}
		conns[peer] = c
	}
	s.links, s.directory = tokenv1.NewLinkServiceClient(conns["token"]), tokenv1.NewDirectoryServiceClient(conns["token"])
	s.identity = identityv1.NewIdentityServiceClient(conns["identity"])
	s.ceremony = ceremonyv1.NewCeremonyServiceClient(conns["ceremony"])
	s.audit = auditv1.NewAuditServiceClient(conns["audit"])
	return conns["token"], nil
}

// Register does nothing: no other service asks the gateway.
func (s *Service) Register(grpc.ServiceRegistrar) {}

// Run follows the file of API keys until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if s.keys == nil {
		<-ctx.Done()
		return nil
	}
	return s.keys.Follow(ctx, s.h.Logger)
}

// platforms lets platforms in by API key, and callers on loopback without one as tenant demo.
func (s *Service) platforms() auth.Authenticator {
	if s.keys == nil {
		return auth.Loopback()
	}
	return auth.FirstOf(s.keys, auth.Loopback())
}

// readFile reads a file that the configuration names; "" is none.
func readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return content, nil
}
