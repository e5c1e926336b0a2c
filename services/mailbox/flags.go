package mailbox

import (
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Flags are the settings of the mailbox as a program takes them, with kong's tags.
type Flags struct {
	SMTP  string `help:"Address where mail is taken." default:"127.0.0.1:1025" env:"COUNTERSIGN_MAILBOX_SMTP" name:"smtp"`
	HTTP  string `help:"Address of the page and the API." default:"127.0.0.1:8025" env:"COUNTERSIGN_MAILBOX" name:"http"`
	Dir   string `help:"Directory of the mails." default:"data/mailbox" env:"COUNTERSIGN_MAILBOX_DIR" type:"path"`
	Keep  int    `help:"How many mails are kept; the oldest go first." default:"1000" env:"COUNTERSIGN_MAILBOX_KEEP"`
	Probe bool   `help:"Ask the mailbox that listens on --http whether it is ready, and exit: the health check of an image."`
}

// Config listens on both addresses and returns the configuration that the flags ask for; now is the clock.
func (f Flags) Config(logger *slog.Logger, now func() time.Time) (Config, error) {
	incoming, err := net.Listen("tcp", f.SMTP)
	if err != nil {
		return Config{}, fmt.Errorf("mailbox: listen for mail: %w", err)
	}
	page, err := net.Listen("tcp", f.HTTP)
	if err != nil {
		_ = incoming.Close() // the error that matters is the other
		return Config{}, fmt.Errorf("mailbox: listen for the page: %w", err)
	}
	return Config{Dir: f.Dir, SMTP: incoming, HTTP: page, Keep: f.Keep, Logger: logger, Now: now}, nil
}
