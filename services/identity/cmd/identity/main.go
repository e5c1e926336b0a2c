// Command identity runs the identity service as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/identity"
)

func main() {
	flags := &struct {
		Identity identity.Config `embed:"" prefix:"identity-"`
	}{}
	host.Main(host.Program{
		Name: identity.Name, About: "Who a signer is, verified step by step.", Flags: flags,
		Build: func(ctx context.Context, h *host.Host, _ *config.Config) (host.Service, error) {
			return identity.New(ctx, h, flags.Identity)
		},
	})
}
