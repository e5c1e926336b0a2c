package pdf_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"countersign.dev/services/ceremony/pdf"
)

var box *pdf.Sandbox

func TestMain(m *testing.M) {
	pdf.RunHelperIfAsked()
	var err error
	if box, err = pdf.New(pdf.Config{Size: 2, Stderr: os.Stderr}); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = box.Close()
	os.Exit(code)
}

func TestInspectRefuses(t *testing.T) {
	deep := strings.Repeat("[", 80) + strings.Repeat("]", 80)
	nested := strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000)
	for name, tt := range map[string]struct {
		document []byte
		want     pdf.Reason
	}{
		"empty":                     {nil, pdf.NotPDF},
		"HTML":                      {[]byte("<!doctype html><title>Not found</title>"), pdf.NotPDF},
		"too large":                 {make([]byte, pdf.MaxBytes+1), pdf.TooLarge},
		"header alone":              {[]byte("%PDF-1.7\n"), pdf.Broken},
		"truncated":                 {letter(t, 3)[:1200], pdf.Broken},
		"encrypted, no password":    {encrypted(), pdf.Encrypted},
		"JavaScript on opening":     {withCatalog("/OpenAction<</S/JavaScript/JS(app.alert\\(1\\))>>"), pdf.JavaScript},
		"JavaScript, escaped name":  {withCatalog("/OpenAction<</S/J#61vaScript/J#53(x)>>"), pdf.JavaScript},
		"JavaScript, unreachable":   {withCatalog("", "<</S/JavaScript/JS(x)>>"), pdf.JavaScript},
		"JavaScript, object stream": {objectStreamed("<</S/JavaScript/JS(x)>>", "/OpenAction 4 0 R"), pdf.JavaScript},
		"JavaScript, name tree":     {withCatalog("/Names<</JavaScript<</Names[(a)4 0 R]>>>>", "<</S/Named/N/NextPage>>"), pdf.JavaScript},
		"launch":                    {withCatalog("/OpenAction<</S/Launch/F(cmd.exe)>>"), pdf.ActiveContent},
		"launch, name by reference": {withCatalog("/OpenAction<</S 4 0 R/F(cmd.exe)>>", "/Launch"), pdf.ActiveContent},
		"submits a form":            {withCatalog("/OpenAction<</S/SubmitForm/F(https://example.com)>>"), pdf.ActiveContent},
		"acts on events":            {withCatalog("/AA<</WC<</S/Named/N/NextPage>>>>"), pdf.ActiveContent},
		"XFA":                       {withCatalog("/AcroForm<</XFA(x)/Fields[]>>"), pdf.DynamicForm},
		"attachment":                {withCatalog("", "<</Type/Filespec/F(a.exe)/EF<</F 5 0 R>>>>", stream("", []byte("MZ"))), pdf.Attachment},
		"film":                      {withCatalog("", "<</Type/Annot/Subtype/Screen/Rect[0 0 9 9]>>"), pdf.Multimedia},
		"nested arrays":             {withCatalog("", nested), pdf.Broken},
		"deep dictionaries":         {withCatalog("", strings.Repeat("<</A ", 80)+"1"+strings.Repeat(">>", 80)), pdf.Broken},
		"JavaScript behind depth":   {withCatalog("/OpenAction 4 0 R", "<</S/JavaScript/JS(x)/Z"+deep+">>"), pdf.Broken},
		"the same, object stream":   {objectStreamed("<</S/JavaScript/JS(x)/Z"+deep+">>", "/OpenAction 4 0 R"), pdf.Broken},
		"no pages":                  {raw("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[]/Count 0>>"), pdf.NoPages},
		"page tree in a circle":     {raw("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[2 0 R]/Count 1>>"), pdf.Broken},
		"501 pages":                 {pagesSized(501, "[0 0 595 842]"), pdf.TooManyPages},
		"page of 2 000 000 points":  {pagesSized(1, "[0 0 2000000 842]"), pdf.PageSize},
		"page of 10 points":         {pagesSized(1, "[0 0 595 10]"), pdf.PageSize},
		"page without a size":       {raw("<</Type/Catalog/Pages 2 0 R>>", pagesOf1, "<</Type/Page/Parent 2 0 R>>"), pdf.PageSize},
		"certified, no changes":     {signed(1), pdf.Locked},
		"signed and damaged":        {append([]byte("junk\n"), signed(2)...), pdf.BrokenSigned},
		"flate bomb":                {flateBomb(), pdf.TooComplex},
		"double flate bomb":         {doubleFlateBomb(), pdf.TooComplex},
		"10^12 draws":               {formBomb(), pdf.TooComplex},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := box.Inspect(t.Context(), tt.document)
			var refusal *pdf.Refusal
			if !errors.As(err, &refusal) || refusal.Reason != tt.want || refusal.Text == "" {
				report.PDF = nil
				t.Errorf("Inspect: %v, want refusal %s; report %+v", err, tt.want, report)
			}
		})
	}
}

func TestInspectAccepts(t *testing.T) {
	linked := withCatalog("", "<</Type/Annot/Subtype/Link/Rect[0 0 9 9]/A<</S/URI/URI(https://example.com)>>>>")
	turned := raw("<</Type/Catalog/Pages 2 0 R>>", "<</Type/Pages/Kids[3 0 R]/Count 1/Rotate 90/MediaBox[10 10 605 852]>>",
		"<</Type/Page/Parent 2 0 R/CropBox[0 0 595 442]/Resources<<>>>>")
	for name, tt := range map[string]struct {
		document []byte
		want     pdf.Report
	}{
		"plain":                {plain(), pdf.Report{Pages: []pdf.Page{{595, 842}}}},
		"of an office":         {letter(t, 3), pdf.Report{Pages: []pdf.Page{{595.28, 841.89}, {595.28, 841.89}, {595.28, 841.89}}}},
		"object streams":       {objectStreamed("null", ""), pdf.Report{Pages: []pdf.Page{{595, 842}}}},
		"links":                {linked, pdf.Report{Pages: []pdf.Page{{595, 842}}, Links: true}},
		"turned and cropped":   {turned, pdf.Report{Pages: []pdf.Page{{432, 585}}}},
		"signed":               {signed(2), pdf.Report{Pages: []pdf.Page{{595, 842}}, Signed: true, DocMDP: 2, Form: true}},
		"shifted offsets":      {shifted(), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"junk before":          {append([]byte("\r\njunk\r\n"), plain()...), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"junk after":           {append(plain(), "<!-- served by proxy -->"...), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"wrong startxref":      {bytes.Replace(plain(), []byte("startxref\n"), []byte("startxref\n1"), 1), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"missing end":          {bytes.TrimSuffix(plain(), []byte("%%EOF\n")), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"references in circle": {bytes.Replace(plain(), []byte("/Size"), []byte("/Prev 381/Size"), 1), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"junk, object stream":  {append(objectStreamed("null", ""), "junk"...), pdf.Report{Pages: []pdf.Page{{595, 842}}, Normalised: true}},
		"500 pages":            {pagesSized(500, "[0 0 595 842]"), pdf.Report{Pages: make([]pdf.Page, 500)}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := box.Inspect(t.Context(), tt.document)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Pages) != len(tt.want.Pages) || len(got.Pages) < 500 && fmt.Sprintf("%.1f", got.Pages) != fmt.Sprintf("%.1f", tt.want.Pages) {
				t.Errorf("pages %v, want %v", got.Pages, tt.want.Pages)
			}
			if got.Signed != tt.want.Signed || got.DocMDP != tt.want.DocMDP || got.Normalised != tt.want.Normalised || got.Links != tt.want.Links || got.Form != tt.want.Form {
				t.Errorf("got signed %v docmdp %d normalised %v links %v form %v, want %+v", got.Signed, got.DocMDP, got.Normalised, got.Links, got.Form, tt.want)
			}
			if got.Normalised == bytes.Equal(got.PDF, tt.document) || got.Normalised == (got.Received == got.Digest) || len(got.Received) != 64 {
				t.Error("digests and bytes do not say what was done")
			}
			if got.Normalised {
				qpdfCheck(t, got.PDF)
				again, err := box.Inspect(t.Context(), got.PDF)
				if err != nil || again.Normalised {
					t.Errorf("the normalised document is not clean: %v, %+v", err, again)
				}
			}
		})
	}
}

func TestRenderPage(t *testing.T) {
	doc := letter(t, 2)
	img, err := box.RenderPage(t.Context(), doc, 2, 720)
	if err != nil {
		t.Fatal(err)
	}
	if img.Type != "image/png" || img.Width != 720 || img.Height < 1015 || img.Height > 1022 || len(img.Bytes) > 150_000 {
		t.Errorf("got %s %dx%d, %d bytes", img.Type, img.Width, img.Height, len(img.Bytes))
	}
	picture, err := png.Decode(bytes.NewReader(img.Bytes))
	if err != nil || picture.Bounds().Dx() != img.Width {
		t.Errorf("png: %v", err)
	}
	again, err := box.RenderPage(t.Context(), doc, 2, 720)
	if err != nil || !bytes.Equal(img.Bytes, again.Bytes) {
		t.Error("the same page gives other bytes")
	}
	text, err := box.PageText(t.Context(), doc, 2)
	if err != nil || !strings.Contains(text, "Agreement, page 2") || strings.Contains(text, "page 1") {
		t.Errorf("text %q, %v", text, err)
	}
	if _, err := box.RenderPage(t.Context(), doc, 3, 720); !errors.Is(err, pdf.ErrNoPage) {
		t.Errorf("page 3: %v", err)
	}
	if _, err := box.RenderPage(t.Context(), doc, 1, 9999); !errors.Is(err, pdf.ErrOptions) {
		t.Errorf("width 9999: %v", err)
	}
	long, err := box.RenderPage(t.Context(), pagesSized(1, "[0 0 72 14400]"), 1, 1080)
	if err != nil || long.Width*long.Height > 1080*4320 {
		t.Errorf("a very long page: %dx%d, %v", long.Width, long.Height, err)
	}
}

// Whoever signs second must see the first signature: the appearance of a signature field, and other annotations.
func TestRenderPageShowsSignatures(t *testing.T) {
	black := stream("/Type/XObject/Subtype/Form/BBox[0 0 400 400]", []byte("0 g 0 0 400 400 re f"))
	doc := raw("<</Type/Catalog/Pages 2 0 R/AcroForm<</SigFlags 3/Fields[4 0 R]>>>>", pagesOf1,
		"<</Type/Page/Parent 2 0 R/MediaBox[0 0 500 1000]/Resources<<>>/Annots[4 0 R 6 0 R]>>",
		"<</Type/Annot/Subtype/Widget/FT/Sig/T(s)/F 132/Rect[50 550 450 950]/P 3 0 R/AP<</N 5 0 R>>>>", black,
		"<</Type/Annot/Subtype/Stamp/F 4/Rect[50 50 450 450]/P 3 0 R/AP<</N 5 0 R>>>>")
	img, err := box.RenderPage(t.Context(), doc, 1, 100)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(img.Bytes))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		y    int
		dark bool
	}{"signature": {50, true}, "paper": {100, false}, "stamp": {150, true}} {
		if r, _, _, _ := picture.At(50, tt.y).RGBA(); (r < 0x4000) != tt.dark {
			t.Errorf("%s: red is %#x", name, r)
		}
	}
}

func TestSandboxGoesOn(t *testing.T) {
	bomb, good := flateBomb(), plain()
	var wait sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 8 {
		wait.Go(func() {
			if i == 3 {
				if _, err := box.Inspect(t.Context(), bomb); !errors.Is(err, pdf.Refuse(pdf.TooComplex)) {
					errs <- fmt.Errorf("bomb: %w", err)
				}
				return
			}
			if _, err := box.Inspect(t.Context(), good); err != nil {
				errs <- err
			}
		})
	}
	wait.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestSandboxLimits(t *testing.T) {
	t.Run("wall time", func(t *testing.T) {
		s := sandbox(t, pdf.Config{Size: 1})
		if err := s.Warm(t.Context()); err != nil {
			t.Fatal(err)
		}
		short := sandbox(t, pdf.Config{Size: 1, JobLimit: time.Millisecond})
		if _, err := short.Inspect(t.Context(), formBomb()); !errors.Is(err, pdf.Refuse(pdf.TooComplex)) {
			t.Errorf("Inspect: %v", err)
		}
	})
	t.Run("caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := box.Inspect(ctx, plain()); !errors.Is(err, context.Canceled) {
			t.Errorf("Inspect: %v", err)
		}
		if _, err := box.Inspect(t.Context(), plain()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		s := sandbox(t, pdf.Config{Size: 1})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Inspect(t.Context(), plain()); !errors.Is(err, pdf.ErrClosed) {
			t.Errorf("Inspect: %v", err)
		}
	})
}

func sandbox(t *testing.T, c pdf.Config) *pdf.Sandbox {
	t.Helper()
	s, err := pdf.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
