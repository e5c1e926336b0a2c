package token

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/rpc"
	"countersign.dev/pkg/server"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// PublicConfig says how platforms reach the gRPC service.
type PublicConfig struct {
	GRPC    string `help:"Address for platforms' gRPC." default:"127.0.0.1:9090" env:"COUNTERSIGN_GRPC" name:"grpc"`
	APIKeys string `help:"File of platforms' API keys; without it only loopback is served, as tenant demo." type:"existingfile" env:"COUNTERSIGN_API_KEYS" name:"api-keys"`

	host.ClientLimit `embed:""`
}

// platformAuth lets platforms in by API key, and callers on loopback without one as tenant demo. follow keeps the keys as their file
// has them, until its context ends.
func platformAuth(h *host.Host, keyFile string) (who auth.Authenticator, follow func(context.Context) error, err error) {
	if keyFile == "" {
		return auth.Loopback(), func(context.Context) error { return nil }, nil
	}
	keyring, err := auth.LoadKeyring(keyFile, h.Keys.Derive("cs.apikey.v1", 32), nowOf(h))
	if err != nil {
		return nil, nil, err
	}
	return auth.FirstOf(keyring, auth.Loopback()), func(ctx context.Context) error { return keyring.Follow(ctx, h.Logger) }, nil
}

// Public returns the server for platforms, and the address it listens on.
func Public(h *host.Host, c PublicConfig, s *Service) (server.Component, string, error) {
	if err := auth.CheckListener(c.GRPC, c.APIKeys != ""); err != nil {
		return server.Component{}, "", err
	}
	if err := c.ClientLimit.Validate(); err != nil {
		return server.Component{}, "", err
	}
	admission, err := h.Admission(Name)
	if err != nil {
		return server.Component{}, "", err
	}
	who, follow, err := platformAuth(h, c.APIKeys)
	if err != nil {
		return server.Component{}, "", err
	}
	scope := "/" + signingv1.SigningRequestService_ServiceDesc.ServiceName + "/"
	links := "/" + signingv1.LinkService_ServiceDesc.ServiceName + "/"
	profile := "/" + signingv1.ProfileService_ServiceDesc.ServiceName + "/"
	public, err := rpc.NewServer(rpc.Options{
		Auth: who, Telemetry: h.Telemetry, Public: true, Reflection: true, Admit: admission.Client(c.ClientLimit),
		// Every method checks the scope it needs itself; to read is the least.
		Scopes: map[string]string{
			scope: auth.RequestsRead, scope + "Create": auth.RequestsWrite, scope + "Cancel": auth.RequestsWrite, scope + "Amend": auth.RequestsWrite,
			scope + "Erase":       auth.RequestsErase,
			scope + "ReissueLink": auth.LinksReissue, scope + "RevokeLink": auth.LinksReissue, scope + "IssueLink": auth.LinksReissue,
			links: auth.RequestsRead, links + "IssueLinks": auth.LinksReissue,
			profile: auth.RequestsRead, profile + "SetProfile": auth.ConfigWrite, profile + "RetireProfile": auth.ConfigWrite,
			profile + "SetProfileRules": auth.ConfigWrite,
		},
	})
	if err != nil {
		return server.Component{}, "", err
	}
	s.RegisterPublic(public)
	l, err := net.Listen("tcp", c.GRPC)
	if err != nil {
		return server.Component{}, "", fmt.Errorf("token: listen for platforms: %w", err)
	}
	run := func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return follow(ctx) })
		g.Go(func() error { return public.Serve(ctx, l) })
		return g.Wait()
	}
	return server.Component{Name: "grpc", Run: run}, l.Addr().String(), nil
}
