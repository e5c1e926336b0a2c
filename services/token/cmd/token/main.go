// Command token runs the token service as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/server"
	"countersign.dev/services/token"
)

func main() {
	flags := &token.PublicConfig{}
	host.Main(host.Program{
		Name: token.Name, About: "Signing requests, links, sessions and the vault of personal data.", Flags: flags,
		Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
			return token.New(ctx, h, tenants)
		},
		Serve: func(h *host.Host, s host.Service) ([]server.Component, error) {
			component, _, err := token.Public(h, *flags, s.(*token.Service)) //nolint:errcheck,forcetypeassert // Build made it
			return []server.Component{component}, err
		},
	})
}
