package ceremony

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// bucket is the object store of documents.
const bucket = "DOCUMENTS"

// storeConfig is the stream of the object store as nats.go lays it out (ADR-20): `init` makes it, so that a lost store is never
// replaced by an empty one.
func storeConfig() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: "OBJ_" + bucket, Subjects: []string{"$O." + bucket + ".C.>", "$O." + bucket + ".M.>"},
		Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew, AllowRollup: true, AllowDirect: true,
	}
}

// readLimit is how long the store may take to give one document.
const readLimit = 30 * time.Second

// errLost means that the store has no longer what was put into it. It is nobody's to mend but the operator's, who restores it.
var errLost = errors.New("is lost")

// store keeps revisions by their digest, encrypted under a key of their request, which the vault has: with it they are erased, in every
// old block and backup.
type store struct {
	objects   jetstream.ObjectStore
	stream    jetstream.Stream // under objects
	directory tokenv1.DirectoryServiceClient
}

func openStore(ctx context.Context, js jetstream.JetStream, directory tokenv1.DirectoryServiceClient) (*store, error) {
	objects, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, fmt.Errorf("ceremony: open the document store: %w", err)
	}
	stream, err := js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		return nil, fmt.Errorf("ceremony: open the document store: %w", err)
	}
	return &store{objects: objects, stream: stream, directory: directory}, nil
}

// aead returns the cipher of a request's documents; failure.RequestErased where its key is destroyed, and jetstream.ErrObjectNotFound
// where there is none and none is to be made: nothing was put yet.
func (s *store) aead(ctx context.Context, tenant, requestID string, fresh bool) (cipher.AEAD, error) {
	answer, err := s.directory.GetDocumentKey(ctx, &tokenv1.GetDocumentKeyRequest{Tenant: tenant, RequestId: requestID, Make: fresh})
	if refusal := failure.From(err); refusal != nil {
		return nil, refusal
	}
	if err != nil {
		return nil, fmt.Errorf("ceremony: the key of the documents of %s: %w", requestID, err)
	}
	if len(answer.GetKey()) == 0 {
		return nil, fmt.Errorf("ceremony: the documents of %s have no key: %w", requestID, jetstream.ErrObjectNotFound)
	}
	block, err := aes.NewCipher(answer.GetKey())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// put stores bytes durably under a name; the same name again is the same content, and nothing is written.
func (s *store) put(ctx context.Context, tenant, requestID, name string, plain []byte) error {
	name = tenant + "/" + requestID + "/" + name
	if _, err := s.objects.GetInfo(ctx, name); err == nil {
		return nil
	} else if !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("ceremony: look for a document: %w", err)
	}
	aead, err := s.aead(ctx, tenant, requestID, true)
	if err != nil {
		return err
	}
	// A random nonce: few enough objects share a key that two are never the same (NIST SP 800-38D 8.3).
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	if _, err := s.objects.PutBytes(ctx, name, aead.Seal(nonce, nonce, plain, []byte(name))); err != nil {
		return fmt.Errorf("ceremony: store a document: %w", err)
	}
	return nil
}

// get returns what was put under a name: jetstream.ErrObjectNotFound where nothing was, and an error that names it where it is not whole
// or not what was put.
func (s *store) get(ctx context.Context, tenant, requestID, name string) ([]byte, error) {
	name = tenant + "/" + requestID + "/" + name
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	aead, err := s.aead(ctx, tenant, requestID, false)
	if err != nil {
		return nil, err
	}
	if err := s.whole(ctx, name); err != nil {
		return nil, fmt.Errorf("ceremony: stored document %s: %w", name, err)
	}
	sealed, err := s.objects.GetBytes(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("ceremony: stored document %s: %w", name, err)
	}
	if len(sealed) < aead.NonceSize() {
		return nil, fmt.Errorf("ceremony: stored document %s is cut short", name)
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("ceremony: stored document %s is not what was put, or was put under other keys", name)
	}
	return plain, nil
}

// whole checks that every part of an object is there: who reads one with a hole waits for the missing part until the time is up.
func (s *store) whole(ctx context.Context, name string) error {
	for before := ""; ; {
		object, err := s.objects.GetInfo(ctx, name)
		if err != nil {
			return err
		}
		parts := "$O." + bucket + ".C." + object.NUID
		info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(parts))
		if err != nil {
			return err
		}
		if info.State.Subjects[parts] == uint64(object.Chunks) {
			return nil
		}
		if object.NUID == before {
			return errLost
		}
		before = object.NUID // the same content may have been put again in between, which takes the parts of before away
	}
}

// remove deletes what was put under a name. What is not there is no error.
func (s *store) remove(ctx context.Context, tenant, requestID, name string) error {
	name = tenant + "/" + requestID + "/" + name
	if err := s.objects.Delete(ctx, name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
		return fmt.Errorf("ceremony: delete stored document %s: %w", name, err)
	}
	return nil
}

// keep stores a revision under its digest.
func (s *store) keep(ctx context.Context, tenant, requestID string, revision []byte) ([]byte, error) {
	sum := sha256.Sum256(revision)
	return sum[:], s.put(ctx, tenant, requestID, hex.EncodeToString(sum[:]), revision)
}

// revision returns the bytes with a digest, which the record names: so they were stored.
func (s *store) revision(ctx context.Context, tenant, requestID string, sum []byte) ([]byte, error) {
	body, err := s.get(ctx, tenant, requestID, hex.EncodeToString(sum))
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, fmt.Errorf("ceremony: stored document %s/%s/%x %w", tenant, requestID, sum, errLost)
	}
	return body, err
}

// keepDescription stores what intake found out, until the request is accepted.
func (s *store) keepDescription(ctx context.Context, tenant, requestID string, d *ceremonyv1.Document) error {
	body, err := proto.Marshal(d)
	if err != nil {
		return err
	}
	return s.put(ctx, tenant, requestID, d.GetId(), body)
}

// describe returns what intake found out about a document; failure.DocumentNotReady where it was not there yet.
func (s *store) describe(ctx context.Context, tenant, requestID, documentID string) (*ceremonyv1.Document, error) {
	body, err := s.get(ctx, tenant, requestID, documentID)
	if errors.Is(err, jetstream.ErrObjectNotFound) {
		return nil, failure.DocumentNotReady
	}
	if err != nil {
		return nil, err
	}
	d := &ceremonyv1.Document{}
	return d, proto.Unmarshal(body, d)
}
