// Command delivery runs the delivery service as a process of its own.
package main

import (
	"context"
	"time"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/host"
	"countersign.dev/services/delivery"
	"countersign.dev/services/delivery/smtp"
)

func main() {
	flags := &struct {
		delivery.Config `embed:""`
		Relay           smtp.Flags `embed:""`
		PublicURL       string     `help:"Where signers reach the gateway; the links in messages begin with it." default:"http://127.0.0.1:8080" env:"COUNTERSIGN_PUBLIC_URL" name:"public-url"`
	}{}
	host.Main(host.Program{
		Name: delivery.Name, About: "Messages to people: what is sent, when it is tried again, when it is given up.", Flags: flags,
		Build: func(ctx context.Context, h *host.Host, tenants *config.Config) (host.Service, error) {
			mail, err := smtp.New(flags.Relay.Config(func() time.Time { return h.Clock.Now("") }))
			if err != nil {
				return nil, err
			}
			flags.Config.PublicURL = flags.PublicURL
			return delivery.New(ctx, h, flags.Config, tenants, mail)
		},
	})
}
