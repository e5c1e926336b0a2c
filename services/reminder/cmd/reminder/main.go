// Command reminder runs the reminder service as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/reminder"
)

func main() {
	host.Main(host.Program{
		Name: reminder.Name, About: "Reminders by plan, in a signer's own daytime, until they are pointless.",
		Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
			return reminder.New(ctx, h, tenants)
		},
	})
}
