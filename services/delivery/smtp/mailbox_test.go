package smtp_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/channel/channeltest"
	"countersign.dev/services/mailbox"
)

// TestMailbox: what we send reads well where developers look at it, and its chaos arrives as failures.
func TestMailbox(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	c := mailbox.Config{Dir: t.TempDir(), SMTP: listen(), HTTP: listen(), Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return noon }}
	box, err := mailbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- box.Run(ctx) }()
	sender := newSender(t, c.SMTP.Addr().String())

	m := channeltest.Message(1)
	m.Subject, m.HTML = "Bitte unterschreiben: Kündigung", "<p>Grüße</p>"
	m.Attached = []channel.Attachment{{Name: "Kündigung.pdf", ContentType: "application/pdf", Content: []byte("%PDF-1.7")}}
	receipt, err := sender.Send(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := box.Await(t.Context(), func(s mailbox.Summary) bool { return s.MessageID == "dlv_suite.1@acme.test" })
	if err != nil {
		t.Fatal(err)
	}
	if got.Subject != m.Subject || got.HTML != m.HTML || !strings.Contains(got.Text, "offer letter") || !got.Date.Equal(noon) ||
		got.From.Name != m.From.Name || got.To[0].Address != m.To.Email || got.Attachments[0].FileName != "Kündigung.pdf" {
		t.Errorf("arrived as %+v", got)
	}
	if receipt.QueueID != got.ID {
		t.Errorf("queue id %q, want %q", receipt.QueueID, got.ID)
	}

	if err := box.SetChaos(mailbox.Triggers{Recipient: mailbox.Trigger{ErrorCode: 451, Probability: 100}}); err != nil {
		t.Fatal(err)
	}
	var f *channel.Failure
	if _, err := sender.Send(t.Context(), channeltest.Message(2)); !errors.As(err, &f) || !f.Temporary || f.Code != 451 {
		t.Errorf("chaos arrived as %v", err)
	}
	cancel() // the sender keeps an idle connection; it must not hold the mailbox up
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
