package mailbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"sync"

	"github.com/emersion/go-smtp"
)

// Trigger makes a stage of SMTP fail now and then.
type Trigger struct {
	ErrorCode   int // what is answered, 400 to 599; 0 = the default of the stage
	Probability int // how often, in percent, 0 to 100
}

// Triggers is the chaos that the mailbox makes, in Mailpit's JSON form. The zero value makes none.
type Triggers struct {
	Sender         Trigger // at MAIL; default code 451
	Recipient      Trigger // at RCPT; default code 451
	Authentication Trigger // at AUTH; default code 535
}

type where int

const (
	sender where = iota
	recipient
	authentication
)

func (t Triggers) withDefaults() Triggers {
	for _, d := range []struct {
		code  *int
		value int
	}{{&t.Sender.ErrorCode, 451}, {&t.Recipient.ErrorCode, 451}, {&t.Authentication.ErrorCode, 535}} {
		if *d.code == 0 {
			*d.code = d.value
		}
	}
	return t
}

// Validate names the first wrong value.
func (t Triggers) Validate() error {
	t = t.withDefaults()
	for _, x := range []Trigger{t.Sender, t.Recipient, t.Authentication} {
		if x.ErrorCode < 400 || x.ErrorCode > 599 {
			return errors.New("error code must be between 400 and 599")
		}
		if x.Probability < 0 || x.Probability > 100 {
			return errors.New("probability must be between 0 and 100")
		}
	}
	return nil
}

// SetChaos makes the mailbox fail as t says from now on.
func (m *Mailbox) SetChaos(t Triggers) error {
	if err := t.Validate(); err != nil {
		return err
	}
	m.chaos.set(t)
	return nil
}

// Chaos returns the triggers that are set.
func (m *Mailbox) Chaos() Triggers { return m.chaos.get() }

type chaos struct {
	mu sync.Mutex
	t  Triggers
}

func (c *chaos) set(t Triggers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t.withDefaults()
}

func (c *chaos) get() Triggers {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// strike returns the error to answer with, or nil.
func (c *chaos) strike(at where) error {
	t := c.get()
	trigger := map[where]Trigger{sender: t.Sender, recipient: t.Recipient, authentication: t.Authentication}[at]
	if trigger.Probability == 0 {
		return nil
	}
	n, err := rand.Int(rand.Reader, big.NewInt(100))
	if err != nil {
		return fmt.Errorf("draw chaos: %w", err)
	}
	if int(n.Int64()) >= trigger.Probability {
		return nil
	}
	return &smtp.SMTPError{Code: trigger.ErrorCode, EnhancedCode: smtp.EnhancedCodeNotSet, Message: "Chaos was asked for"}
}
