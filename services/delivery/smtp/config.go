package smtp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// How the connection to the relay is protected.
const (
	StartTLS = "starttls" // plain port, STARTTLS required (RFC 3207); the default
	Implicit = "implicit" // TLS from the first byte (RFC 8314)
	Plain    = "none"     // no encryption: loopback only, unless AllowPlain
)

// Config says how to reach one relay.
type Config struct {
	Name    string // names the relay in receipts and metrics; default the host of Address
	Address string // host:port
	TLS     string // StartTLS, Implicit or Plain; default StartTLS

	AllowPlain bool   // permits Plain to a host that is not loopback
	CAFile     string // PEM certificates to trust instead of the system's; empty = the system's
	ServerName string // name in the relay's certificate; default the host of Address

	Username     string // empty = no authentication
	PasswordFile string // file that holds the password, read at every connection so that it can be rotated

	Helo string // own host name in EHLO; default localhost

	DKIM DKIM // signs each message; zero = the relay signs

	Timeout  time.Duration    // for one message from dial to answer; default 60 s, range 1 s to 15 min
	Idle     time.Duration    // how long a connection is kept for the next message; default 15 s, negative = not at all
	Capacity int              // connections kept idle; default 2, range 0 to 64
	Now      func() time.Time // the clock: Date field, age of idle connections; required
}

// DKIM names the key that signs outgoing mail (RFC 6376).
type DKIM struct {
	Domain   string // d=, must align with the From domain for DMARC
	Selector string // s=
	KeyFile  string // PEM, RSA or Ed25519 private key
}

// withDefaults fills what is empty.
func (c Config) withDefaults() Config {
	host, _, _ := net.SplitHostPort(c.Address)
	for _, d := range []struct {
		field *string
		value string
	}{{&c.TLS, StartTLS}, {&c.Name, host}, {&c.ServerName, host}, {&c.Helo, "localhost"}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.Idle == 0 {
		c.Idle = 15 * time.Second
	}
	if c.Capacity == 0 {
		c.Capacity = 2
	}
	return c
}

// Validate names every wrong field.
func (c Config) Validate() error {
	c = c.withDefaults()
	var wrong []error
	bad := func(field, problem string) { wrong = append(wrong, fmt.Errorf("smtp.%s %s", field, problem)) }
	host, port, err := net.SplitHostPort(c.Address)
	if n, perr := strconv.Atoi(port); err != nil || host == "" || perr != nil || n < 1 || n > 65535 {
		bad("address", "must be host:port")
	}
	switch c.TLS {
	case StartTLS, Implicit:
	case Plain:
		if !c.AllowPlain && !loopback(host) {
			bad("tls", "none is for loopback relays only, unless allow_plain is set")
		}
	default:
		bad("tls", "must be starttls, implicit or none")
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		bad("username", "and password_file go together")
	}
	if strings.ContainsAny(c.Helo, " \t\r\n") {
		bad("helo", "must be a host name")
	}
	if set := c.DKIM; set != (DKIM{}) && (set.Domain == "" || set.Selector == "" || set.KeyFile == "") {
		bad("dkim", "needs domain, selector and key_file")
	}
	if c.Timeout < time.Second || c.Timeout > 15*time.Minute {
		bad("timeout", "must be between 1s and 15m")
	}
	if c.Capacity < 0 || c.Capacity > 64 {
		bad("capacity", "must be between 0 and 64")
	}
	if c.Now == nil {
		bad("now", "is required")
	}
	return errors.Join(wrong...)
}

// loopback reports whether host is this machine for certain; a name that would have to be looked up is not.
func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
