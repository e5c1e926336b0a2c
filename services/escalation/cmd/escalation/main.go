// Command escalation runs the escalation service as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/escalation"
)

func main() {
	host.Main(host.Program{
		Name: escalation.Name, About: "What is done when a signature does not come: managers, alternates, the end.",
		Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
			return escalation.New(ctx, h, tenants)
		},
	})
}
