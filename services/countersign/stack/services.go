package stack

import (
	"context"
	"fmt"
	"net"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/host"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/server"
	"countersign.dev/services/audit"
	"countersign.dev/services/ceremony"
	"countersign.dev/services/delivery"
	"countersign.dev/services/delivery/smtp"
	"countersign.dev/services/escalation"
	"countersign.dev/services/gateway"
	"countersign.dev/services/identity"
	"countersign.dev/services/mailbox"
	"countersign.dev/services/reminder"
	"countersign.dev/services/token"
)

// topologies are what the services need, in no particular order.
var topologies = []eventlog.Topology{
	token.Topology(), delivery.Topology(), identity.Topology(), ceremony.Topology(), reminder.Topology(), escalation.Topology(), audit.Topology(),
}

// HotState is what the services keep in Redis and can make again from the record.
func HotState() []hotstate.Part { return []hotstate.Part{token.HotState()} }

// addMailbox adds the development mailbox, unless mail goes to a relay.
func (s *stack) addMailbox() error {
	if s.addresses.SMTP = s.config.SMTP; s.config.SMTP != "" {
		return nil
	}
	incoming, err := net.Listen("tcp", s.config.MailboxSMTP)
	if err != nil {
		return fmt.Errorf("listen for mail: %w", err)
	}
	page, err := net.Listen("tcp", s.config.Mailbox)
	if err != nil {
		return fmt.Errorf("listen for the mailbox: %w", err)
	}
	m, err := mailbox.New(mailbox.Config{
		Dir: s.path("mailbox"), SMTP: incoming, HTTP: page, Logger: s.telemetry.Log, Now: s.now,
	})
	if err != nil {
		return err
	}
	s.addresses.SMTP, s.addresses.Mailbox = incoming.Addr().String(), "http://"+page.Addr().String()
	s.components = append(s.components, server.Component{Name: "mailbox", Run: m.Run})
	return nil
}

// addServices makes every service and the two public doors.
func (s *stack) addServices(ctx context.Context) error {
	tokens, err := token.New(ctx, s.base.For(token.Name), s.tenants)
	if err != nil {
		return err
	}
	web, httpAddress, err := s.door(ctx)
	if err != nil {
		return err
	}
	s.addresses.HTTP = "http://" + httpAddress
	if s.config.Delivery.PublicURL = s.config.Gateway.PublicURL; s.config.Delivery.PublicURL == "" {
		s.config.Delivery.PublicURL = s.addresses.HTTP
	}
	mail, err := smtp.New(smtp.Config{Address: s.addresses.SMTP, TLS: s.config.SMTPTLS, Now: s.now})
	if err != nil {
		return err
	}
	type named struct {
		name  string
		build func(h *host.Host) (host.Service, error)
	}
	for _, n := range []named{
		{token.Name, func(*host.Host) (host.Service, error) { return tokens, nil }},
		{identity.Name, func(h *host.Host) (host.Service, error) { return identity.New(ctx, h, s.config.Identity) }},
		{ceremony.Name, func(h *host.Host) (host.Service, error) { return ceremony.New(ctx, h, s.config.Ceremony) }},
		{delivery.Name, func(h *host.Host) (host.Service, error) {
			return delivery.New(ctx, h, s.config.Delivery, s.tenants, mail)
		}},
		{reminder.Name, func(h *host.Host) (host.Service, error) { return reminder.New(ctx, h, s.tenants) }},
		{escalation.Name, func(h *host.Host) (host.Service, error) { return escalation.New(ctx, h, s.tenants) }},
		{audit.Name, func(h *host.Host) (host.Service, error) { return audit.New(ctx, h, s.tenants, ceremony.AuthorityFile) }},
	} {
		h := s.base.For(n.name)
		service, err := n.build(h)
		if err != nil {
			return err
		}
		components, err := host.Components(h, n.name, service, s.network)
		if err != nil {
			return err
		}
		s.components = append(s.components, components...)
	}
	public, grpcAddress, err := token.Public(s.base.For(token.Name), token.PublicConfig{
		GRPC: s.config.GRPC, APIKeys: s.config.Gateway.APIKeys, ClientLimit: s.config.Gateway.ClientLimit,
	}, tokens)
	if err != nil {
		return err
	}
	s.addresses.GRPC = grpcAddress
	s.components = append(s.components, public, web)
	return nil
}

// door makes the HTTP edge.
func (s *stack) door(ctx context.Context) (server.Component, string, error) {
	edge, err := gateway.New(ctx, s.base.For(gateway.Name), s.config.Gateway, s.tenants)
	if err != nil {
		return server.Component{}, "", err
	}
	return edge.Serve()
}
