package token

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/vault"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

const saltSize = 32

// commit binds to a field's value without telling it (audit.md 1.5.7): the salt, kept beside the value, defeats a dictionary.
func commit(salt []byte, field, value string) []byte {
	m := hmac.New(sha256.New, salt)
	m.Write([]byte("cs.commit.v1\x00" + field + "\x00" + value))
	return m.Sum(nil)
}

func newSalt() []byte {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	return salt
}

// personID is derived from who it is and where: the same person in the same place of the same request again is the same id, and
// a conflicting request with the same reference can never overwrite somebody of the first.
func (s *Service) personID(requestID string, position uint32, role string, p *signingv1.Person) string {
	return eventlog.DeriveID(s.h.Keys, "per", requestID, fmt.Sprint(position), role, p.GetName(), p.GetEmail(), p.GetLocale(), p.GetTimeZone())
}

// of is where the vault keeps what is private about one signer position: whoever holds, held or may hold it, and what was said and
// left behind on its link. It is erased as one.
func of(tenant, linkID, id string) vault.Place {
	return vault.Place{Tenant: tenant, Owner: linkID, ID: id}
}

// putPerson keeps a person in the vault and returns the commitments to name and email. Keeping again keeps the first salts.
func (s *Service) putPerson(ctx context.Context, at vault.Place, role string, p *signingv1.Person) (map[string][]byte, error) {
	kept := &tokenv1.PrivatePerson{Person: p, Salts: map[string][]byte{"name": newSalt(), "email": newSalt()}}
	if err := s.storeOnce(ctx, at, kept); err != nil {
		return nil, fmt.Errorf("token: keep a person: %w", err)
	}
	return commitmentsOf(kept, role), nil
}

// changePerson keeps a person instead of what is kept there, and returns the commitments to what is new.
func (s *Service) changePerson(ctx context.Context, at vault.Place, role string, p *signingv1.Person) (map[string][]byte, error) {
	kept := &tokenv1.PrivatePerson{}
	if err := s.load(ctx, at, kept); err != nil {
		return nil, fmt.Errorf("token: change a person: %w", err)
	}
	if !proto.Equal(kept.GetPerson(), p) {
		// Other salts, since the same one would tell that a name was changed back.
		kept = &tokenv1.PrivatePerson{Person: p, Salts: map[string][]byte{"name": newSalt(), "email": newSalt()}}
		if err := s.store(ctx, at, kept); err != nil {
			return nil, fmt.Errorf("token: change a person: %w", err)
		}
	}
	return commitmentsOf(kept, role), nil
}

// commitments returns those to what is kept of a person.
func (s *Service) commitments(ctx context.Context, at vault.Place, role string) (map[string][]byte, error) {
	kept := &tokenv1.PrivatePerson{}
	if err := s.load(ctx, at, kept); err != nil {
		return nil, err
	}
	return commitmentsOf(kept, role), nil
}

func commitmentsOf(kept *tokenv1.PrivatePerson, role string) map[string][]byte {
	return map[string][]byte{
		role + ".name":  commit(kept.GetSalts()["name"], role+".name", kept.GetPerson().GetName()),
		role + ".email": commit(kept.GetSalts()["email"], role+".email", kept.GetPerson().GetEmail()),
	}
}

// noteID names words of a platform about an act on a request; the same words about the same act are one note.
func (s *Service) noteID(requestID, act, text string) string {
	return eventlog.DeriveID(s.h.Keys, "not", requestID, act, text)
}

// reason keeps a platform's reason for an act, with each of its owners, and returns its id; "" where it gave none.
func (s *Service) reason(ctx context.Context, r *tokenv1.Request, act, text string, owners ...string) (string, error) {
	if text == "" {
		return "", nil
	}
	id := s.noteID(r.GetId(), act, text)
	for _, owner := range owners {
		if _, err := s.putNote(ctx, vault.Place{Tenant: r.GetTenant(), Owner: owner, ID: id}, text); err != nil {
			return "", err
		}
	}
	return id, nil
}

// person returns how to reach somebody.
func (s *Service) person(ctx context.Context, at vault.Place) (*signingv1.Person, error) {
	kept := &tokenv1.PrivatePerson{}
	if err := s.load(ctx, at, kept); err != nil {
		return nil, err
	}
	return kept.GetPerson(), nil
}

// putNote keeps words, once: later words in the same place are not taken. It returns the commitment to what is kept.
func (s *Service) putNote(ctx context.Context, at vault.Place, text string) ([]byte, error) {
	kept := &tokenv1.PrivateNote{Text: text, Salt: newSalt()}
	if err := s.storeOnce(ctx, at, kept); err != nil {
		return nil, fmt.Errorf("token: keep a note: %w", err)
	}
	return commit(kept.GetSalt(), "note", kept.GetText()), nil
}

// wordsOf is where the vault keeps what a request is called, under the id that holds now.
func wordsOf(r *tokenv1.Request, privateID string) vault.Place {
	return vault.Place{Tenant: r.GetTenant(), Owner: r.GetId(), ID: privateID}
}

// words returns what a request is called.
func (s *Service) words(ctx context.Context, r *tokenv1.Request) (*tokenv1.RequestWords, error) {
	w := &tokenv1.RequestWords{}
	if err := s.load(ctx, wordsOf(r, r.GetPrivateId()), w); err != nil {
		return nil, err
	}
	return w, nil
}

func (s *Service) store(ctx context.Context, at vault.Place, m proto.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return erased(at, s.vault.Put(ctx, at, body))
}

// storeOnce keeps m unless something is kept there already, and makes m what is kept: of many at once one wins, for all.
func (s *Service) storeOnce(ctx context.Context, at vault.Place, m proto.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	kept, err := s.vault.PutOnce(ctx, at, body)
	if err != nil {
		return erased(at, err)
	}
	return proto.Unmarshal(kept, m)
}

// load reads from the vault into m. What was erased is a refusal, what is unknown vault.ErrUnknown.
func (s *Service) load(ctx context.Context, at vault.Place, m proto.Message) error {
	body, err := s.vault.Get(ctx, at)
	if err != nil {
		return erased(at, err)
	}
	return proto.Unmarshal(body, m)
}

// erased is how the vault's own word for it leaves the service.
func erased(at vault.Place, err error) error {
	switch {
	case !errors.Is(err, vault.ErrErased):
		return err
	case strings.HasPrefix(at.Owner, "req_"):
		return failure.RequestErased
	default:
		return failure.PersonErased
	}
}
