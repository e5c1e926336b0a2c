package eventlog

import (
	"fmt"
	"strings"
)

// Key names an aggregate of a service.
type Key struct {
	Tenant string // [a-z0-9-]{1,32}
	ID     string // [A-Za-z0-9_-]{1,64}
}

// ValidTenant reports whether s may name a tenant: [a-z0-9-]{1,32} (decisions 5).
func ValidTenant(s string) bool {
	for i := range len(s) { // by hand: every message that is read is asked, and a regular expression takes ten times as long
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// ValidToken reports whether s may stand in a subject: [A-Za-z0-9_-]{1,64} (decisions 5).
func ValidToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// Validate refuses a key that would change the meaning of a subject.
func (k Key) Validate() error {
	if !ValidTenant(k.Tenant) {
		return fmt.Errorf("eventlog: %q is no tenant (a-z, 0-9 and -, at most 32)", k.Tenant)
	}
	if !ValidToken(k.ID) {
		return fmt.Errorf("eventlog: %q is no aggregate id (letters, digits, _ and -, at most 64)", k.ID)
	}
	return nil
}

// FactSubject returns the subject of an aggregate of a service.
func FactSubject(service string, k Key) string {
	return "fact." + service + "." + k.Tenant + "." + k.ID
}

// ParseSubject takes apart a subject of the form <family>.<service>.<tenant>.<id>.
func ParseSubject(subject string) (family, service string, k Key, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 {
		return "", "", Key{}, fmt.Errorf("eventlog: %q has %d tokens, want 4", subject, len(parts))
	}
	k = Key{Tenant: parts[2], ID: parts[3]}
	if err := k.Validate(); err != nil {
		return "", "", Key{}, err
	}
	return parts[0], parts[1], k, nil
}

// FactsStream returns the name of a service's stream of facts.
func FactsStream(service string) string { return "FACTS_" + strings.ToUpper(service) }
