package ceremony_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image/png"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	"countersign.dev/services/ceremony"
	"countersign.dev/services/ceremony/pdf"
)

// bare builds a PDF of one empty page, with more in its catalog and more objects from number 4 on.
func bare(catalog string, more ...string) []byte {
	return paged(catalog, "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<<>>>>", more...)
}

func paged(catalog, page string, more ...string) []byte {
	var b bytes.Buffer
	b.WriteString("%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
	objects := append([]string{"<</Type/Catalog/Pages 2 0 R" + catalog + ">>", "<</Type/Pages/Kids[3 0 R]/Count 1>>", page}, more...)
	table := fmt.Sprintf("xref\n0 %d\n0000000000 65535 f \n", len(objects)+1)
	for i, o := range objects {
		table += fmt.Sprintf("%010d 00000 n \n", b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	fmt.Fprintf(&b, "%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", table, len(objects)+1, b.Len())
	return b.Bytes()
}

// certified is a document whose author allows no further signature.
func certified() []byte {
	return bare("/AcroForm<</SigFlags 3/Fields[4 0 R]>>/Perms<</DocMDP 5 0 R>>",
		"<</Type/Annot/Subtype/Widget/FT/Sig/T(s)/Rect[0 0 0 0]/P 3 0 R/V 5 0 R>>",
		"<</Type/Sig/Filter/Adobe.PPKLite/SubFilter/ETSI.CAdES.detached/ByteRange[0 10 20 10]/Contents<00>"+
			"/Reference[<</Type/SigRef/TransformMethod/DocMDP/TransformParams<</Type/TransformParams/P 1/V/1.2>>>>]>>")
}

// TestRefused: each kind of unsafe document is refused with its reason beside the field, and nothing of it is kept.
func TestRefused(t *testing.T) {
	w := start(t)
	for _, tt := range []struct {
		content []byte
		want    pdf.Reason
	}{
		{nil, pdf.NotPDF},
		{[]byte("<!doctype html><title>Not found</title>"), pdf.NotPDF},
		{make([]byte, pdf.MaxBytes+1), pdf.TooLarge},
		{lease(t)[:600], pdf.Broken},
		{bytes.Replace(bare("", "<</Filter/Standard/V 1/R 2/P -4/O<00>/U<00>>>"), []byte("/Root 1 0 R"), []byte("/Root 1 0 R/Encrypt 4 0 R"), 1), pdf.Encrypted},
		{bare("/OpenAction<</S/JavaScript/JS(app.alert\\(1\\))>>"), pdf.JavaScript},
		{bare("/OpenAction<</S/Launch/F(cmd.exe)>>"), pdf.ActiveContent},
		{bare("/AcroForm<</XFA(x)/Fields[]>>"), pdf.DynamicForm},
		{bare("", "<</Type/Filespec/F(a.exe)/EF<</F 5 0 R>>>>", "<</Length 2>>\nstream\nMZ\nendstream"), pdf.Attachment},
		{bare("", "<</Type/Annot/Subtype/Screen/Rect[0 0 9 9]>>"), pdf.Multimedia},
		{bytes.Replace(bare(""), []byte("/Kids[3 0 R]/Count 1"), []byte("/Kids[     ]/Count 0"), 1), pdf.NoPages},
		{paged("", "<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 10]>>"), pdf.PageSize},
		{certified(), pdf.Locked},
		{append([]byte("junk\n"), bytes.Replace(certified(), []byte("/P 1"), []byte("/P 2"), 1)...), pdf.BrokenSigned},
	} {
		_, err := w.inspect("req_bad", "doc_1", tt.content)
		f := refused(t, err, failure.DocumentRefused)
		if len(f.Fields) != 1 || f.Fields[0].Path != "content" || !strings.HasPrefix(f.Fields[0].Problem, string(tt.want)+": ") {
			t.Errorf("%s: fields %v", tt.want, f.Fields)
		}
	}
	if kept := w.Messages("OBJ_DOCUMENTS", ">"); len(kept) > 0 {
		t.Errorf("%d messages are kept of what was refused", len(kept))
	}
	// A header in the middle is no header: the one that names the document comes first.
	stream, err := w.client.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&ceremonyv1.InspectRequest{Part: &ceremonyv1.InspectRequest_Chunk{Chunk: lease(t)}}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.CloseAndRecv()
	refused(t, err, failure.RequestUnreadable)
	w.done()
}

// TestTakenIn: a document is kept encrypted, once, and shown as it was taken in.
func TestTakenIn(t *testing.T) {
	w := start(t)
	content := lease(t)
	var all sync.WaitGroup
	answers := make([]*ceremonyv1.Document, 3)
	for i := range answers {
		all.Go(func() {
			d, err := w.inspect("req_1", "doc_1", content)
			if err != nil {
				t.Error(err)
			}
			answers[i] = d
		})
	}
	all.Wait()
	d := answers[0]
	received := sha256.Sum256(content)
	if !bytes.Equal(d.GetReceivedSha256(), received[:]) || len(d.GetPages()) != 2 || len(d.GetBoxes()) != 2 || d.GetBoxes()[1].GetPage() != 2 || d.GetBoxes()[1].GetPosition() != 2 {
		t.Errorf("described as %v", d)
	}
	before := len(w.Messages("OBJ_DOCUMENTS", ">"))
	again, err := w.inspect("req_1", "doc_1", content)
	if err != nil || len(w.Messages("OBJ_DOCUMENTS", ">")) != before {
		t.Errorf("the same document again: %v, %d messages became %d", err, before, len(w.Messages("OBJ_DOCUMENTS", ">")))
	}
	for _, other := range slices.Concat(answers, []*ceremonyv1.Document{again}) {
		if !proto.Equal(d, other) {
			t.Errorf("%v and %v", d, other)
		}
	}

	_, err = w.client.GetCeremony(t.Context(), &ceremonyv1.GetCeremonyRequest{Tenant: tenant, RequestId: "req_1"})
	refused(t, err, failure.DocumentNotReady)
	w.accept("req_1")
	w.accept("req_1")
	w.Settled(ceremony.Topology())
	w.wantFacts("req_1", "CeremonyPrepared")
	w.wantPages("req_1")
	w.stop()
	w.Rewind(ceremony.Topology())
	w.start()
	w.Settled(ceremony.Topology())
	w.wantFacts("req_1", "CeremonyPrepared")

	presented, err := w.document("req_1", ceremonyv1.Revision_REVISION_PRESENTED)
	if sum := sha256.Sum256(presented); err != nil || !bytes.Equal(sum[:], d.GetPresentedSha256()) {
		t.Errorf("what is shown has the digest %x, %v", sum, err)
	}
	w.done()
}

// wantPages looks at the pages of a lease.
func (w *world) wantPages(request string) {
	w.t.Helper()
	page, err := w.client.GetPage(w.t.Context(), &ceremonyv1.GetPageRequest{Tenant: tenant, RequestId: request, DocumentId: "doc_1", Page: 1, Width: 720})
	if err != nil || page.GetContentType() != "image/png" || page.GetWidth() != 720 {
		w.t.Fatalf("page %v, %v", page.GetContentType(), err)
	}
	if _, err := png.Decode(bytes.NewReader(page.GetImage())); err != nil {
		w.t.Error(err)
	}
	text, err := w.client.GetText(w.t.Context(), &ceremonyv1.GetTextRequest{Tenant: tenant, RequestId: request, DocumentId: "doc_1", Page: 1})
	if err != nil || !strings.Contains(text.GetText(), words) {
		w.t.Errorf("text %q, %v", text.GetText(), err)
	}
	for _, page := range []uint32{3, 500} {
		_, err = w.client.GetPage(w.t.Context(), &ceremonyv1.GetPageRequest{Tenant: tenant, RequestId: request, DocumentId: "doc_1", Page: page, Width: 720})
		refused(w.t, err, failure.RequestUnknown)
	}
	_, err = w.client.GetText(w.t.Context(), &ceremonyv1.GetTextRequest{Tenant: tenant, RequestId: request, DocumentId: "doc_other", Page: 1})
	refused(w.t, err, failure.RequestUnknown)
	// The same request of another tenant is none.
	_, err = w.client.GetCeremony(w.t.Context(), &ceremonyv1.GetCeremonyRequest{Tenant: "other", RequestId: request})
	refused(w.t, err, failure.DocumentNotReady)
}
