// Package trail reads the audit trail of a request as its platform gets it, and says in words what happened, who is waited for and
// why. It is pure: the same events always give the same words. What a newer release adds to the trail it passes over.
package trail

import (
	"encoding/json"
	"time"

	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// Entry is one event.
type Entry struct {
	Type       string // the leaf's type, for example cs.link.redeemed
	At         time.Time
	LinkID     string // the signer position it is about; "" for none
	Generation uint32
	Actor      string            // signer, platform, system, operator
	Code       string            // how it went; "ok" or a code that says why not
	Info       map[string]string // what the kind has to say
	Level      uint32            // of identity that was proved
	Methods    []string
}

// leaf is what is read of a leaf's bytes.
type leaf struct {
	Actor struct {
		Kind string `json:"kind"`
	} `json:"actor"`
	Auth struct {
		Got     uint32   `json:"got"`
		Methods []string `json:"methods"`
	} `json:"auth"`
	Link struct {
		ID  string `json:"id"`
		Gen uint32 `json:"gen"`
	} `json:"link"`
	Info map[string]string `json:"info"`
	Out  struct {
		Code string `json:"code"`
	} `json:"out"`
}

// Read returns the events as entries, in their order. A leaf that cannot be read leaves type and time.
func Read(events []*signingv1.Event) []Entry {
	entries := make([]Entry, 0, len(events))
	for _, e := range events {
		var l leaf
		if json.Unmarshal([]byte(e.GetLeaf()), &l) != nil {
			l = leaf{}
		}
		entries = append(entries, Entry{
			Type: e.GetType(), At: e.GetAt().AsTime(), LinkID: l.Link.ID, Generation: l.Link.Gen, Actor: l.Actor.Kind, Code: l.Out.Code, Info: l.Info,
			Level: l.Auth.Got, Methods: l.Auth.Methods,
		})
	}
	return entries
}

// at reads an instant of the entry's info; the zero time where there is none.
func (e Entry) at(name string) time.Time {
	t, err := time.Parse(time.RFC3339, e.Info[name])
	if err != nil {
		return time.Time{}
	}
	return t
}
