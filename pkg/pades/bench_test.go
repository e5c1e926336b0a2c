package pades

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"
)

// BenchmarkSign sets a signature beside its ceiling: hashing the file once and one ECDSA P-256 signature. The metric ceiling% is the share
// of the time that this ceiling takes; the rest is parsing, copying, and opening and verifying the result.
func BenchmarkSign(b *testing.B) {
	for _, size := range []int{100 << 10, 1 << 20, 10 << 20} {
		noise := make([]byte, size)
		_, _ = rand.Read(noise)
		pdf := letter(tableKind, "1.7", "/Picture 7 0 R", "", "", stream(string(noise)))
		for _, shown := range []bool{false, true} {
			o := options(0)
			if shown {
				o = visible(o, 1, 100, 100, 260, 160)
			}
			b.Run(fmt.Sprintf("%dkB/visible=%v", size>>10, shown), func(b *testing.B) {
				ceiling := ceilingOf(b, pdf)
				b.SetBytes(int64(len(pdf)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Sign(pdf, o); err != nil {
						b.Fatal(err)
					}
				}
				each := b.Elapsed() / time.Duration(b.N)
				b.ReportMetric(100*float64(ceiling)/float64(each), "ceiling%")
			})
		}
	}
}

func ceilingOf(b *testing.B, pdf []byte) time.Duration {
	b.Helper()
	key := people().signers[0].Signer().(*ecdsa.PrivateKey)
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			sum := sha256.Sum256(pdf)
			if _, err := ecdsa.SignASN1(rand.Reader, key, sum[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	return time.Duration(r.NsPerOp())
}

func BenchmarkVerify(b *testing.B) {
	out := letter(tableKind, "1.7", "", "", "")
	for i := range 3 {
		out = mustSign(b, out, options(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(out, roots()); err != nil {
			b.Fatal(err)
		}
	}
}
