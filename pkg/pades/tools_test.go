package pades

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// strangers are the programs that judge our signatures besides our own verifier.
type strangers struct {
	nss string // data base of certificates for pdfsig, which calls good files unknown without one
	ca  string // PEM of the authority
}

func newStrangers(t *testing.T) strangers {
	t.Helper()
	dir := t.TempDir()
	s := strangers{nss: filepath.Join(dir, "nss"), ca: filepath.Join(dir, "ca.pem")}
	if err := os.Mkdir(s.nss, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.ca, people().ca.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-N", "-d", s.nss, "--empty-password"},
		{"-A", "-n", "ca", "-t", "CT,C,C", "-d", s.nss, "-i", s.ca},
	} {
		if out, err := run(t, "certutil", args...); err != nil {
			t.Fatalf("certutil %v: %v\n%s", args, err, out)
		}
	}
	return s
}

// judge asks every program about a file with n signatures, and openssl about the last one.
func (s strangers) judge(t *testing.T, pdf []byte, n int) {
	t.Helper()
	path := write(t, "signed.pdf", pdf)
	out, _ := run(t, "pdfsig", "-nssdir", s.nss, path)
	if strings.Count(out, "Signature is Valid.") != n || strings.Count(out, "Certificate is Trusted.") != n ||
		strings.Count(out, "Total document signed") < 1 || strings.Count(out, "ETSI.CAdES.detached") != n {
		t.Errorf("pdfsig, want %d valid and trusted:\n%s", n, out)
	}
	if out, err := run(t, "qpdf", "--check", path); err != nil || strings.Contains(out, "WARNING") {
		t.Errorf("qpdf --check: %v\n%s", err, out)
	}
	out, err := run(t, "mutool", "sign", "-v", path)
	if err != nil || strings.Count(out, "unchanged since signing")+strings.Count(out, "valid but there have been edits") != n || strings.Contains(out, "Digest error") {
		t.Errorf("mutool sign -v: %v\n%s", err, out)
	}
	s.openssl(t, pdf)
}

// openssl verifies the last signature as CAdES over the ranges it covers.
func (s strangers) openssl(t *testing.T, pdf []byte) {
	t.Helper()
	doc, err := open(pdf)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range doc.signed() {
		r, contents, err := doc.byteRange(doc.dict(f.value))
		if err != nil {
			t.Fatal(err)
		}
		if r[2]+r[3] != len(pdf) {
			continue
		}
		cms := write(t, "sig.der", derOnly(contents))
		content := write(t, "content", append(bytes.Clone(pdf[:r[1]]), pdf[r[2]:]...))
		out, err := run(t, "openssl", "cms", "-verify", "-cades", "-binary", "-inform", "DER", "-in", cms, "-content", content,
			"-CAfile", s.ca, "-out", os.DevNull)
		if err != nil || !strings.Contains(out, "CAdES Verification successful") {
			t.Errorf("openssl cms: %v\n%s", err, out)
		}
		return
	}
	t.Error("no signature covers the whole file")
}

// derOnly cuts the padding behind a DER object.
func derOnly(b []byte) []byte {
	length, head := int(b[1]), 2
	if b[1] == 0x82 {
		length, head = int(b[2])<<8|int(b[3]), 4
	}
	return b[:head+length]
}

func TestStrangersAcceptEveryShape(t *testing.T) {
	s := newStrangers(t)
	files := corpus()
	files["object streams"] = qpdf(t, files["form"], "--object-streams=generate")
	files["linearised"] = qpdf(t, files["table"], "--linearize", "--object-streams=disable")
	files["linearised stream"] = qpdf(t, files["form"], "--linearize", "--object-streams=generate")
	for name, pdf := range files {
		t.Run(name, func(t *testing.T) {
			o := visible(options(0), 1, 100, 100, 260, 160)
			if strings.HasPrefix(name, "empty field") {
				o.FieldName = "Approve"
			}
			t.Parallel()
			out := mustSign(t, pdf, o)
			out = mustSign(t, out, options(1))
			out = mustSign(t, out, visible(options(2), 2, 300, 100, 460, 160))
			s.judge(t, out, 3)
			for _, sig := range mustVerify(t, out) {
				if !sig.Valid() {
					t.Errorf("%+v", sig)
				}
			}
		})
	}
}

func TestStrangersAcceptRSAAndCertification(t *testing.T) {
	s := newStrangers(t)
	o := options(0)
	o.Signer, o.Chain = rsaSigner()
	o.Certify = FillAndSign
	out := mustSign(t, letter(streamKind, "1.7", "", "", ""), o)
	s.judge(t, out, 1)
	s.judge(t, mustSign(t, out, options(1)), 2)
}

// Ours must refuse whatever a stranger refuses; that theirs accept what was appended is why ours exists.
func TestStrangersSeeAFlippedByte(t *testing.T) {
	s := newStrangers(t)
	out := mustSign(t, letter(tableKind, "1.7", "", "", ""), options(0))
	bad := bytes.Replace(out, []byte("100 EUR"), []byte("900 EUR"), 1)
	text, _ := run(t, "pdfsig", "-nssdir", s.nss, write(t, "bad.pdf", bad))
	if !strings.Contains(text, "Digest Mismatch") {
		t.Errorf("pdfsig:\n%s", text)
	}
	if sig := mustVerify(t, bad)[0]; sig.Intact || sig.Valid() {
		t.Errorf("%+v", sig)
	}
}

// A document time stamp by openssl's authority, put in through the same hole: what follows a signature for the long term.
func TestDocumentTimeStamp(t *testing.T) {
	tsa := newTSA(t)
	signed := mustSign(t, letter(tableKind, "1.7", "", "", ""), func() Options { o := options(0); o.Certify = NoChanges; return o }())
	stamped := tsa.stamp(t, signed, nil)
	sigs := mustVerify(t, stamped)
	if len(sigs) != 2 || !sigs[0].Valid() || sigs[0].CoversWholeFile || !sigs[1].Intact || sigs[1].Kind != DocumentTimeStamp || !sigs[1].CoversWholeFile {
		t.Fatalf("%+v", sigs)
	}
	if len(sigs[0].Changes) != 1 || sigs[0].Changes[0].What != timeAdded {
		t.Errorf("changes %+v", sigs[0].Changes)
	}
	if sigs[1].Time.IsZero() || sigs[1].Trusted {
		t.Errorf("time stamp: %+v", sigs[1])
	}
	other := tsa.stamp(t, signed, []byte("a digest of other bytes, 32 long."[:32]))
	if sig := mustVerify(t, other)[1]; sig.Intact {
		t.Error("a time stamp of other bytes passes")
	}
	if _, err := Sign(stamped, options(1)); err == nil {
		t.Error("signed what is certified against changes")
	}
}

type tsa struct{ dir string }

func newTSA(t *testing.T) tsa {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf(`[req]
distinguished_name=dn
x509_extensions=ext
prompt=no
[dn]
CN=Test TSA
[ext]
extendedKeyUsage=critical,timeStamping
keyUsage=critical,digitalSignature
basicConstraints=critical,CA:FALSE
[tsa]
default_tsa=t
[t]
serial=%[1]s/serial
crypto_device=builtin
signer_cert=%[1]s/cert.pem
signer_key=%[1]s/key.pem
signer_digest=sha256
default_policy=1.2.3.4
digests=sha256
ess_cert_id_alg=sha256
`, dir)
	for name, text := range map[string]string{"conf": config, "serial": "01\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := tsa{dir}
	s.openssl(t, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", s.path("conf"),
		"-keyout", s.path("key.pem"), "-out", s.path("cert.pem"), "-days", "30")
	return s
}

func (s tsa) path(name string) string { return filepath.Join(s.dir, name) }

func (s tsa) openssl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := run(t, "openssl", args...); err != nil {
		t.Fatalf("openssl %v: %v\n%s", args, err, out)
	}
}

// token stamps a SHA-256 digest.
func (s tsa) token(t *testing.T, digest []byte) []byte {
	t.Helper()
	s.openssl(t, "ts", "-query", "-digest", fmt.Sprintf("%x", digest), "-sha256", "-cert", "-out", s.path("req"))
	s.openssl(t, "ts", "-reply", "-config", s.path("conf"), "-section", "t", "-queryfile", s.path("req"), "-token_out", "-out", s.path("token"))
	token, err := os.ReadFile(s.path("token"))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// stamp appends a document time stamp to pdf; over instead of the right digest, if given.
func (s tsa) stamp(t *testing.T, pdf, over []byte) []byte {
	t.Helper()
	doc, err := open(pdf)
	if err != nil {
		t.Fatal(err)
	}
	u := newUpdate(doc)
	value := u.alloc()
	o := Options{FieldName: "Time" + strconv.Itoa(len(doc.fields)), At: noon, Reserve: 8192}
	if err := u.placeField(o, value); err != nil {
		t.Fatal(err)
	}
	h := u.putSignature(value, o)
	out, err := u.finish()
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(out, []byte(subFilterCAdES))
	copy(out[at:], subFilterTSA+"       "[:len(subFilterCAdES)-len(subFilterTSA)])
	if err := h.fill(out, func(digest []byte) ([]byte, error) {
		if over != nil {
			digest = over
		}
		return s.token(t, digest), nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAuthorityFilesAreReadByOpenSSL(t *testing.T) {
	id := people().signers[0]
	ca := write(t, "ca.pem", people().ca.CertificatePEM())
	leaf := write(t, "leaf.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate().Raw}))
	if out, err := run(t, "openssl", "verify", "-x509_strict", "-purpose", "smimesign", "-CAfile", ca, leaf); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}
