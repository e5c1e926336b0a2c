// Command audit runs the audit service as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/audit"
)

// authorityFile is the PEM file beside the keys that `countersign init` makes; certificates of completion are sealed under it.
const authorityFile = "pdf-authority"

func main() {
	host.Main(host.Program{
		Name: audit.Name, About: "The log that shows any change made to it later, and certificates of completion.",
		Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
			return audit.New(ctx, h, tenants, authorityFile)
		},
	})
}
