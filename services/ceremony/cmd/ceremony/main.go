// Command ceremony runs the ceremony service as a process of its own.
package main

import (
	"context"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/ceremony"
	"countersign.dev/services/ceremony/pdf"
)

func main() {
	pdf.RunHelperIfAsked() // first: documents are read in processes that are this program again
	flags := &ceremony.Config{}
	host.Main(host.Program{
		Name: ceremony.Name, About: "Documents, and how they are signed.", Flags: flags,
		Build: func(ctx context.Context, h *host.Host, _ *config.Config) (host.Service, error) {
			return ceremony.New(ctx, h, *flags)
		},
	})
}
