// Package natsaccess says who may do what on a NATS server: the services of a deployment everything in an account of their own, which has
// the record, and the platforms of each tenant nothing but publish that tenant's intake and hear what it is told, from an account of
// that tenant. An account is a world of its own: nothing of one is seen in another but what both have agreed on.
//
// All keys follow from the master key of the deployment, so that the services need no secret more, and the file of accounts can be
// written anew at any time.
package natsaccess

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	// nkeys is NATS's own kind of credentials: a key pair of which the server knows the public half alone.
	"github.com/nats-io/nkeys"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
)

// Names of accounts. A platform's is the prefix and its tenant.
const (
	ServicesAccount = "COUNTERSIGN"
	PlatformPrefix  = "PLATFORM_"
	systemAccount   = "SYS"
)

// ReplySubject is under what a tenant's platforms may have answers published to them.
func ReplySubject(tenant string) string { return "reply." + tenant + "." }

// Platform is whose platforms may connect.
type Platform struct {
	Tenant string
	Number int // 1 is the first key; another number is another key, and the one before is good no longer
}

// ParsePlatform reads TENANT or TENANT:NUMBER.
func ParsePlatform(text string) (Platform, error) {
	tenant, number, given := strings.Cut(text, ":")
	p := Platform{Tenant: tenant, Number: 1}
	if given {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 {
			return p, fmt.Errorf("natsaccess: %q: the number of a key is 1 or more", text)
		}
		p.Number = n
	}
	if !eventlog.ValidTenant(tenant) {
		return p, fmt.Errorf("natsaccess: %q is no tenant (a-z, 0-9 and -, at most 32)", tenant)
	}
	return p, nil
}

// user returns the key pair that follows from a seed of 32 bytes.
func user(seed []byte) nkeys.KeyPair {
	pair, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, seed)
	if err != nil {
		panic("natsaccess: " + err.Error()) // a seed of 32 bytes is one
	}
	return pair
}

func services(ring *keys.Ring) nkeys.KeyPair { return user(ring.Derive("cs.nats.services.v1", 32)) }

// Key returns the key pair of a tenant's platforms.
func (p Platform) Key(ring *keys.Ring) nkeys.KeyPair {
	return user(ring.MAC("cs.nats.platform.v1", []byte(p.Tenant), []byte(strconv.Itoa(p.Number))))
}

func public(pair nkeys.KeyPair) string {
	key, err := pair.PublicKey()
	if err != nil {
		panic("natsaccess: " + err.Error()) // it has a seed
	}
	return key
}

// Connect connects a service, as itself where the server wants to know who calls. Without a ring it is nobody.
func Connect(url string, ring *keys.Ring, options ...nats.Option) (*nats.Conn, error) {
	if ring == nil {
		return nats.Connect(url, options...)
	}
	pair := services(ring)
	nc, err := nats.Connect(url, append(options[:len(options):len(options)], nats.Nkey(public(pair), pair.Sign))...)
	if errors.Is(err, nats.ErrNkeysNotSupported) {
		return nats.Connect(url, options...) // it takes everybody
	}
	return nc, err
}

// Config returns the accounts as NATS's configuration has them, to be included at its top.
func Config(ring *keys.Ring, platforms []Platform) (string, error) {
	var exports, accounts strings.Builder
	seen := map[string]bool{}
	for _, p := range platforms {
		if _, err := ParsePlatform(p.Tenant); err != nil {
			return "", err
		}
		if seen[p.Tenant] {
			return "", fmt.Errorf("natsaccess: the tenant %s is named twice", p.Tenant)
		}
		seen[p.Tenant] = true
		named := strings.NewReplacer("TENANT", p.Tenant, "ACCOUNT", PlatformPrefix+p.Tenant, "SERVICES", ServicesAccount, "KEY", public(p.Key(ring)), "REPLY", ReplySubject(p.Tenant)+">")
		_, _ = named.WriteString(&exports, platformExports) // never fails on a builder
		_, _ = named.WriteString(&accounts, platformAccount)
	}
	all := strings.NewReplacer("SERVICES", ServicesAccount, "SYSTEM", systemAccount, "KEY", public(services(ring)),
		"EXPORTS", exports.String(), "PLATFORMS", accounts.String())
	return all.Replace(allAccounts), nil
}

const (
	allAccounts = `# Who may do what on NATS. Written by ` + "`countersign keys nats`" + `, and written anew by it: change nothing here.
accounts {
  # The services, and the record.
  SERVICES {
    jetstream: enabled
    users: [ {nkey: KEY} ]
    exports: [
EXPORTS    ]
  }
PLATFORMS  SYSTEM {}
}
system_account: SYSTEM
`
	platformExports = `      {service: "intake.TENANT", accounts: ["ACCOUNT"]}
      {stream: "outcome.TENANT.>", accounts: ["ACCOUNT"]}
      {stream: "REPLY", accounts: ["ACCOUNT"]}
`
	platformAccount = `  "ACCOUNT" {
    users: [ {nkey: KEY, permissions: {
      publish: {allow: ["intake.TENANT"]}
      subscribe: {allow: ["outcome.TENANT.>", "REPLY", "_INBOX.>"]}
    }} ]
    imports: [
      {service: {account: SERVICES, subject: "intake.TENANT"}}
      {stream: {account: SERVICES, subject: "outcome.TENANT.>"}}
      {stream: {account: SERVICES, subject: "REPLY"}}
    ]
  }
`
)
