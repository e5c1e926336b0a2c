// Command gateway runs the HTTP edge as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/server"
	"countersign.dev/services/gateway"
)

func main() {
	flags := &gateway.Config{}
	host.Main(host.Program{
		Name: gateway.Name, About: "The HTTP edge: signers' pages, deep links, REST.", Flags: flags,
		Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
			return gateway.New(ctx, h, *flags, tenants)
		},
		Serve: func(_ *host.Host, s host.Service) ([]server.Component, error) {
			component, _, err := s.(*gateway.Service).Serve() //nolint:errcheck,forcetypeassert // Build made it
			return []server.Component{component}, err
		},
	})
}
