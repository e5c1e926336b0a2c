package token

import (
	"context"
	"fmt"
	"net"

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
}

// PlatformAuth lets platforms in by API key, and callers on loopback without one as tenant demo.
func PlatformAuth(h *host.Host, keyFile string) (auth.Authenticator, error) {
	if keyFile == "" {
		return auth.Loopback(), nil
	}
	keyring, err := auth.LoadKeyring(keyFile, h.Keys.Derive("cs.apikey.v1", 32), nowOf(h))
	if err != nil {
		return nil, err
	}
	return auth.FirstOf(keyring, auth.Loopback()), nil
}

// Public returns the server for platforms, and the address it listens on.
func Public(h *host.Host, c PublicConfig, s *Service) (server.Component, string, error) {
	if err := auth.CheckListener(c.GRPC, c.APIKeys != ""); err != nil {
		return server.Component{}, "", err
	}
	who, err := PlatformAuth(h, c.APIKeys)
	if err != nil {
		return server.Component{}, "", err
	}
	scope := "/" + signingv1.SigningRequestService_ServiceDesc.ServiceName + "/"
	profile := "/" + signingv1.ProfileService_ServiceDesc.ServiceName + "/"
	public, err := rpc.NewServer(rpc.Options{
		Auth: who, Telemetry: h.Telemetry, Public: true, Reflection: true,
		// Every method checks the scope it needs itself; to read is the least.
		Scopes: map[string]string{
			scope: auth.RequestsRead, scope + "Create": auth.RequestsWrite, scope + "Cancel": auth.RequestsWrite, scope + "Amend": auth.RequestsWrite,
			scope + "ReissueLink": auth.LinksReissue, scope + "RevokeLink": auth.LinksReissue, scope + "IssueLink": auth.LinksReissue,
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
	return server.Component{Name: "grpc", Run: func(ctx context.Context) error { return public.Serve(ctx, l) }}, l.Addr().String(), nil
}
