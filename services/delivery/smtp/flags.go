package smtp

import "time"

// Flags are the settings of a relay as a program takes them, with kong's tags.
type Flags struct {
	SMTP     string `help:"Relay that takes our mail (host:port)." required:"" env:"COUNTERSIGN_SMTP" name:"smtp"`
	TLS      string `help:"How the relay is reached: starttls, implicit or none." default:"starttls" enum:"starttls,implicit,none" env:"COUNTERSIGN_SMTP_TLS" name:"smtp-tls"`
	Plain    bool   `help:"Allow --smtp-tls=none to a relay on another machine: links and codes travel in clear. For a development mailbox." env:"COUNTERSIGN_SMTP_ALLOW_PLAIN" name:"smtp-allow-plain"`
	CA       string `help:"PEM file of certificates to trust instead of the system's." type:"existingfile" env:"COUNTERSIGN_SMTP_CA_FILE" name:"smtp-ca-file"`
	Username string `help:"User at the relay; empty is no authentication." env:"COUNTERSIGN_SMTP_USERNAME" name:"smtp-username"`
	Password string `help:"File that holds the user's password; it is read at every connection, so it may be replaced." type:"existingfile" env:"COUNTERSIGN_SMTP_PASSWORD_FILE" name:"smtp-password-file"`
	Helo     string `help:"Name of this machine in EHLO." default:"localhost" env:"COUNTERSIGN_SMTP_HELO" name:"smtp-helo"`

	DKIMDomain   string `help:"Domain (d=) to sign messages for; empty leaves signing to the relay." env:"COUNTERSIGN_DKIM_DOMAIN" name:"dkim-domain"`
	DKIMSelector string `help:"Selector (s=) of the key in DNS." env:"COUNTERSIGN_DKIM_SELECTOR" name:"dkim-selector"`
	DKIMKey      string `help:"PEM file of the private key, RSA or Ed25519." type:"existingfile" env:"COUNTERSIGN_DKIM_KEY_FILE" name:"dkim-key-file"`
}

// Config returns the configuration that the flags ask for; now is the clock.
func (f Flags) Config(now func() time.Time) Config {
	return Config{
		Address: f.SMTP, TLS: f.TLS, AllowPlain: f.Plain, CAFile: f.CA, Username: f.Username, PasswordFile: f.Password, Helo: f.Helo,
		DKIM: DKIM{Domain: f.DKIMDomain, Selector: f.DKIMSelector, KeyFile: f.DKIMKey}, Now: now,
	}
}
