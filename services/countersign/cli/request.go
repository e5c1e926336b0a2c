package cli

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/mail"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// What send reads at most, in bytes: a document as the contract has it, and a request with one in base64.
const (
	maxDocument = 5 << 20
	maxRequest  = 8 << 20
)

// request makes the request that the flags describe.
func (c *SendCmd) request(o *IO) (*signingv1.SigningRequest, error) {
	req := &signingv1.SigningRequest{}
	if c.File != "" {
		if len(c.Signer)+len(c.Alternate)+len(c.Manager) > 0 || c.Sequential || c.Locale != "" || c.TimeZone != "" {
			return nil, usage("put them into the file, or leave --file out", "--file and flags about signers exclude each other")
		}
		if err := readRequest(o.In, c.File, req); err != nil {
			return nil, err
		}
	} else if c.Document == "" || len(c.Signer) == 0 {
		return nil, usage("for example: countersign send --document offer.pdf --signer 'Ada Lovelace <ada@example.com>'",
			"a request needs --document and at least one --signer, or --file")
	}
	if c.Document != "" {
		if len(req.GetDocuments()) > 0 {
			return nil, usage("leave --document out", "the request in %s has its document already", c.File)
		}
		document, err := readDocument(c.Document)
		if err != nil {
			return nil, err
		}
		req.Documents = append(req.Documents, document)
	}
	if c.File == "" {
		if err := c.signers(req); err != nil {
			return nil, err
		}
	}
	c.override(req)
	return req, nil
}

// override sets what flags say beside a file. What flags leave out is made of the document and the signers; what a file leaves out is
// for the server to name, as it does on every other way.
func (c *SendCmd) override(req *signingv1.SigningRequest) {
	set := func(field *string, value string) {
		if value != "" {
			*field = value
		}
	}
	set(&req.Title, c.Title)
	set(&req.Reference, c.Reference)
	set(&req.Profile, c.Profile)
	if c.File != "" {
		return
	}
	if req.GetTitle() == "" && len(req.GetDocuments()) > 0 {
		name := req.GetDocuments()[0].GetName()
		req.Title = strings.TrimSuffix(name, filepath.Ext(name))
	}
	if req.GetReference() == "" {
		req.Reference = reference(req)
	}
}

// reference names a request after its documents and signers, so that saying the same again is the same request.
func reference(req *signingv1.SigningRequest) string {
	h := sha256.New()
	part := func(b []byte) {
		_ = binary.Write(h, binary.BigEndian, uint64(len(b))) // a hash takes everything
		h.Write(b)
	}
	for _, d := range req.GetDocuments() {
		part(d.GetContent())
	}
	for _, s := range req.GetSigners() {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
		if err != nil { // words that are no UTF-8; the server names the field
			b = fmt.Appendf(nil, "%q %q", s.GetName(), s.GetEmail())
		}
		part(b)
	}
	return "cli-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// signers adds who signs, in which order, and who stands behind them.
func (c *SendCmd) signers(req *signingv1.SigningRequest) error {
	for i, text := range c.Signer {
		p, err := c.person("--signer", text)
		if err != nil {
			return err
		}
		s := &signingv1.Signer{Name: p.GetName(), Email: p.GetEmail(), Locale: p.GetLocale(), TimeZone: p.GetTimeZone(), Group: 1}
		if c.Sequential {
			s.Group = uint32(i) + 1
		}
		req.Signers = append(req.Signers, s)
	}
	for _, text := range c.Alternate {
		s, p, err := c.behind("--alternate", text, req.GetSigners())
		if err != nil {
			return err
		}
		s.Alternates = append(s.Alternates, p)
	}
	for _, text := range c.Manager {
		s, p, err := c.behind("--manager", text, req.GetSigners())
		if err != nil {
			return err
		}
		if s.GetManager() != nil {
			return usage("give one --manager for each signer", "two managers for one signer")
		}
		s.Manager = p
	}
	return nil
}

// behind reads "1=NAME <ADDRESS>": the signer it is about, and the person.
func (c *SendCmd) behind(flag, text string, signers []*signingv1.Signer) (*signingv1.Signer, *signingv1.Person, error) {
	position, rest, ok := strings.Cut(text, "=")
	n, err := strconv.Atoi(strings.TrimSpace(position))
	if !ok || err != nil {
		return nil, nil, usage(fmt.Sprintf("for example: %s '1=Grace Hopper <grace@example.com>'", flag), "%s %q does not begin with the position of a signer", flag, text)
	}
	if n < 1 || n > len(signers) {
		return nil, nil, usage("positions count the --signer flags, from 1", "%s %q: there is no signer %d", flag, text, n)
	}
	p, err := c.person(flag, rest)
	return signers[n-1], p, err
}

// person reads "NAME <ADDRESS>". It is laxer than a mail header, since names have commas and dots.
func (c *SendCmd) person(flag, text string) (*signingv1.Person, error) {
	name, rest, ok := strings.Cut(strings.TrimSpace(text), "<")
	address, tail, closed := strings.Cut(rest, ">")
	name = strings.TrimSpace(strings.Trim(strings.TrimSpace(name), `"`))
	if parsed, err := mail.ParseAddress(strings.TrimSpace(address)); !ok || !closed || tail != "" || name == "" || err != nil || parsed.Name != "" {
		return nil, usage(fmt.Sprintf("for example: %s 'Ada Lovelace <ada@example.com>'", flag), "%s %q is not NAME <ADDRESS>", flag, text)
	}
	return &signingv1.Person{Name: name, Email: strings.TrimSpace(address), Locale: c.Locale, TimeZone: c.TimeZone}, nil
}

func readDocument(path string) (*signingv1.Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("name the PDF to sign", "cannot read the document: %v", err)
	}
	defer f.Close()
	content, err := readLimited(f, path, maxDocument)
	if err != nil {
		return nil, err
	}
	return &signingv1.Document{Name: filepath.Base(path), Content: content}, nil
}

func readRequest(stdin io.Reader, path string, into *signingv1.SigningRequest) error {
	from, name := stdin, "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return usage("name a file with the request, or - for standard input", "cannot read the request: %v", err)
		}
		defer f.Close()
		from, name = f, path
	}
	text, err := readLimited(from, name, maxRequest)
	if err != nil {
		return err
	}
	if err := rpc.DecodeJSON(text, into); err != nil {
		p := refusal(failure.From(err))
		p.exit = ExitUsage // nothing was asked
		return p
	}
	return nil
}

func readLimited(from io.Reader, name string, limit int64) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err != nil {
		return nil, usage("check that it is a file that can be read", "cannot read %s: %v", name, err)
	}
	if int64(len(content)) > limit {
		return nil, usage("make it smaller, for example with lower resolution of its pictures", "%s has more than %d MiB", name, limit>>20)
	}
	if len(content) == 0 {
		return nil, usage("check that it is the right one", "%s is empty", name)
	}
	return content, nil
}
