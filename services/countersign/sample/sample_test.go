package sample_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"countersign.dev/services/countersign/sample"
)

func TestOffer(t *testing.T) {
	b := sample.Offer("Zoë Łukasiewicz")
	if !bytes.Equal(b, sample.Offer("Zoë Łukasiewicz")) {
		t.Error("the same name gives other bytes")
	}
	if bytes.Equal(b, sample.Offer("Jane Doe")) || len(b) > 150_000 {
		t.Errorf("%d bytes", len(b))
	}
	file := t.TempDir() + "/offer.pdf"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool(t, "qpdf"), "--check", file).CombinedOutput(); err != nil {
		t.Errorf("qpdf --check: %v\n%s", err, out)
	}
	text, err := exec.Command(tool(t, "pdftotext"), "-layout", file, "-").Output()
	if err != nil || !strings.Contains(string(text), "Dear Zoë Łukasiewicz,") || !strings.Contains(string(text), "Rosalind Finch") {
		t.Errorf("pdftotext: %v\n%s", err, text)
	}
	if pages := bytes.Count(text, []byte("\f")); pages != 2 {
		t.Errorf("%d pages, want 2", pages)
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
		t.Fatalf("%s is required and not installed", name)
	}
	t.Skipf("%s is not installed", name)
	return ""
}
