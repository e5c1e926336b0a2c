package gateway

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/failure"
	auditv1 "countersign.dev/proto/countersign/audit/v1"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/gateway/pages"
)

// Pictures of pages come in these widths, in pixels; their height is at most twice that (pdf.md 5).
const (
	narrow = 720
	wide   = 1080
)

const (
	maxPages   = 520 // that a document may have, in ceremony's contract
	textPages  = 10  // so long a document has its reading text beside the pictures; a longer one on pages of its own
	textAtOnce = 4
)

// documentPage shows what is to be signed, and takes the signature.
func (s *Service) documentPage(w http.ResponseWriter, r *http.Request, v *visit, c *ceremonyv1.Ceremony, form typed) error {
	request, err := s.words(r, v)
	if err != nil {
		return err
	}
	if len(c.GetDocuments()) == 0 {
		return s.refuse(w, r, v, failure.DocumentNotReady)
	}
	d := c.GetDocuments()[0] // the contract has one document a request
	paper := pages.Paper{Title: titleOf(request, v), Sheets: sheets(v, d), Download: v.at.sign() + "/document.pdf", Reading: readingPath(v, d, 1)}
	if len(paper.Sheets) <= textPages {
		s.readTexts(r, v, d, paper.Sheets)
	}
	p := pages.Document{
		Frame: v.frame, Sender: v.sender(), Signer: signerName(v), Papers: []pages.Paper{paper}, Presented: hex.EncodeToString(d.GetPresentedSha256()),
		Sign: v.at.sign() + "/sign", Decline: v.at.sign() + "/decline", Failure: form.failure, Agreed: form.agreed, Name: form.name,
	}
	if !s.now(v).Before(v.link.GetExpiresAt().AsTime()) {
		p.FinishBy = v.link.GetSessionEndsAt().AsTime()
	}
	if form.failure != nil {
		s.countRefusal(r.Context(), form.failure)
	}
	return show(w, p)
}

func signerName(v *visit) string {
	if v.holder.GetName() != "" {
		return v.holder.GetName()
	}
	return "…" // erased meanwhile; ceremony decides what becomes of it
}

// sheets are the pictures of a document's pages, as ceremony draws them: within the width, at most twice as high.
func sheets(v *visit, d *ceremonyv1.Document) []pages.Sheet {
	all := make([]pages.Sheet, 0, len(d.GetPages()))
	for i := range d.GetPages() {
		all = append(all, sheet(v, d, i+1))
	}
	return all
}

func sheet(v *visit, d *ceremonyv1.Document, number int) pages.Sheet {
	size := d.GetPages()[number-1]
	width, height := float64(narrow), float64(narrow)*math.Sqrt2
	if size.GetWidth() > 0 && size.GetHeight() > 0 {
		height = narrow * size.GetHeight() / size.GetWidth()
	}
	if height > 2*narrow {
		width, height = width*2*narrow/height, 2*narrow
	}
	src := fmt.Sprintf("%s/pages/%s/%d.", v.at.sign(), d.GetId(), number)
	return pages.Sheet{
		Src: src + strconv.Itoa(narrow), Wide: src + strconv.Itoa(wide), WideWidth: int(math.Round(width * wide / narrow)),
		Width: int(math.Round(width)), Height: int(math.Round(height)),
	}
}

func readingPath(v *visit, d *ceremonyv1.Document, number int) string {
	return fmt.Sprintf("%s/read/%s/%d", v.at.sign(), d.GetId(), number)
}

// readTexts fills in the reading text. A page whose text is not to be had stays without: the picture and the PDF have it.
func (s *Service) readTexts(r *http.Request, v *visit, d *ceremonyv1.Document, all []pages.Sheet) {
	var group errgroup.Group
	group.SetLimit(textAtOnce)
	for i := range all {
		group.Go(func() error {
			all[i].Text = s.readText(r, v, d, i+1)
			return nil
		})
	}
	_ = group.Wait() // none of them fails
}

func (s *Service) readText(r *http.Request, v *visit, d *ceremonyv1.Document, number int) string {
	answer, err := s.ceremony.GetText(r.Context(), &ceremonyv1.GetTextRequest{
		Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), DocumentId: d.GetId(), Page: uint32(number),
	})
	if err != nil {
		s.h.Logger.DebugContext(r.Context(), "a page's text was not read", "page", number, "error", err)
	}
	return answer.GetText()
}

// reader meets a browser that may see the document: its session goes on, and its signer has proved who they are. With the
// error there is a visit where /sign has more to say.
func (s *Service) reader(r *http.Request) (*http.Request, *visit, error) {
	r, v, err := s.enter(r)
	if err != nil {
		return r, nil, err
	}
	if v.refusal != nil {
		return r, v, stateToGoOn(v.refusal)
	}
	proved, err := s.check(r, v, s.toSign(v))
	switch {
	case err != nil:
		return r, nil, err
	case !proved.GetSatisfied():
		return r, v, failure.IdentityRequired
	}
	return r, v, nil
}

// elsewhere leads a reader who may not read to where it is said why, and what to do; without a visit there is no such place.
func elsewhere(w http.ResponseWriter, v *visit, err error) error {
	if v == nil {
		return err
	}
	return seeOther(w, v.at.sign())
}

// pageImage is the picture of one page: {page}.{width}. It is not kept anywhere: no-store holds for all a signer sees.
func (s *Service) pageImage(w http.ResponseWriter, r *http.Request) error {
	number, width, ok := strings.Cut(r.PathValue("file"), ".")
	page, good := pageNumber(number)
	if !ok || !good || !documentForm.MatchString(r.PathValue("document")) || !slices.Contains([]string{"720", "1080"}, width) {
		return failure.LinkUnknown
	}
	r, v, err := s.reader(r)
	if err != nil {
		return err
	}
	pixels := narrow
	if width == strconv.Itoa(wide) {
		pixels = wide
	}
	answer, err := s.ceremony.GetPage(r.Context(), &ceremonyv1.GetPageRequest{
		Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), DocumentId: r.PathValue("document"), Page: uint32(page), Width: uint32(pixels),
	})
	if err != nil {
		return err
	}
	if t := answer.GetContentType(); t != "image/png" && t != "image/jpeg" {
		return fmt.Errorf("gateway: a page came as %q", t)
	}
	return send(w, answer.GetContentType(), "inline", answer.GetImage())
}

func pageNumber(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 1 && n <= maxPages && strconv.Itoa(n) == text
}

// readingPage shows one page with its text.
func (s *Service) readingPage(w http.ResponseWriter, r *http.Request) error {
	number, ok := pageNumber(r.PathValue("page"))
	if !ok {
		return failure.LinkUnknown
	}
	r, v, err := s.reader(r)
	if err != nil {
		return elsewhere(w, v, err)
	}
	c, err := s.ceremonyOf(r, v)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(c.GetDocuments(), func(d *ceremonyv1.Document) bool { return d.GetId() == r.PathValue("document") })
	if at < 0 || number > len(c.GetDocuments()[at].GetPages()) {
		return failure.LinkUnknown
	}
	request, err := s.words(r, v)
	if err != nil {
		return err
	}
	d := c.GetDocuments()[at]
	p := pages.Reading{
		Frame: v.frame, Title: titleOf(request, v), Sheet: sheet(v, d, number), Number: number, Of: len(d.GetPages()),
		Back: v.at.sign(), Download: v.at.sign() + "/document.pdf",
	}
	p.Self = readingPath(v, d, number)
	p.Sheet.Text = s.readText(r, v, d, number)
	if number > 1 {
		p.Before = readingPath(v, d, number-1)
	}
	if number < len(d.GetPages()) {
		p.After = readingPath(v, d, number+1)
	}
	return show(w, p)
}

// holdsCopy meets a browser that signed a request which everybody has signed by now. With the error there is a visit where
// /sign has more to say.
func (s *Service) holdsCopy(r *http.Request) (*http.Request, *visit, *tokenv1.GetRequestResponse, error) {
	r, v, err := s.enter(r)
	if err != nil {
		return r, nil, nil, err
	}
	request, err := s.words(r, v)
	if err != nil {
		return r, nil, nil, err
	}
	if !v.here || v.refusal == nil || v.refusal.Code != failure.LinkSigned.Code || !complete(request) {
		return r, v, nil, failure.SessionUnknown
	}
	return r, v, request, nil
}

// download is the document as a file: the newest revision, to who may see it, or who signed it once it is complete.
func (s *Service) download(w http.ResponseWriter, r *http.Request) error {
	r, v, err := s.reader(r)
	var request *tokenv1.GetRequestResponse
	if errors.Is(err, failure.LinkSigned) {
		r, v, request, err = s.holdsCopy(r)
	} else if err == nil {
		if request, err = s.words(r, v); err != nil {
			return err
		}
	}
	if err != nil {
		return elsewhere(w, v, err)
	}
	c, err := s.ceremonyOf(r, v)
	if err != nil {
		return err
	}
	if len(c.GetDocuments()) == 0 {
		return failure.DocumentNotReady
	}
	body, err := s.fetch(r, v, c.GetDocuments()[0].GetId())
	if err != nil {
		return err
	}
	return send(w, "application/pdf", attachment(request.GetWords().GetDocumentNames()), body)
}

// fetch reads a document whole, so that what fails on the way is told as what it is and not by half a file. A document is at
// most some MB.
func (s *Service) fetch(r *http.Request, v *visit, documentID string) ([]byte, error) {
	stream, err := s.ceremony.GetDocument(r.Context(), &ceremonyv1.GetDocumentRequest{
		Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), DocumentId: documentID, Revision: ceremonyv1.Revision_REVISION_CURRENT,
	})
	if err != nil {
		return nil, err
	}
	var body []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		body = append(body, part.GetChunk()...)
	}
}

// certificate is the certificate of completion.
func (s *Service) certificate(w http.ResponseWriter, r *http.Request) error {
	r, v, _, err := s.holdsCopy(r)
	if err != nil {
		return elsewhere(w, v, err)
	}
	answer, err := s.audit.GetCertificate(r.Context(), &auditv1.GetCertificateRequest{Tenant: v.at.tenant, RequestId: v.link.GetRequestId(), Locale: v.frame.Language()})
	if err != nil {
		return err
	}
	return send(w, "application/pdf", attachment([]string{"certificate.pdf"}), answer.GetPdf())
}

// attachment names a file for the browser to keep. The name came from a platform: it is cleaned, and encoded where it has to be.
func attachment(names []string) string {
	name := "document.pdf"
	if len(names) > 0 {
		cleaned := strings.Trim(pages.Clean(path.Base(strings.ReplaceAll(names[0], `\`, "/")), 120), ". ")
		if base := strings.TrimSuffix(cleaned, path.Ext(cleaned)); base != "" && base != "/" {
			name = base + ".pdf"
		}
	}
	return mime.FormatMediaType("attachment", map[string]string{"filename": name})
}

// send writes a file.
func send(w http.ResponseWriter, kind, disposition string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", disposition)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) //nolint:gosec // an image or a PDF of ours, with nosniff; a reader that went away is its own matter
	return nil
}
