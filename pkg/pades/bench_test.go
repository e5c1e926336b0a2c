//go:build unix

package pades

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// BenchmarkSign sets a signature beside its ceiling: hashing the file once and one ECDSA P-256 signature. The metric ceiling% is that
// ceiling's share of the processor time; the rest is parsing, copying, and opening and verifying the result. Processor time, not wall
// time: the share then holds on a busy machine too.
func BenchmarkSign(b *testing.B) {
	key := people().signers[0].Signer().(*ecdsa.PrivateKey)
	for _, size := range []int{100 << 10, 1 << 20, 10 << 20} {
		noise := make([]byte, size)
		_, _ = rand.Read(noise)
		pdf := letter(tableKind, "1.7", "/Picture 7 0 R", "", "", stream(string(noise)))
		name := fmt.Sprintf("%dkB/", size>>10)
		ceiling := measure(b, name+"ceiling", 0, func() error {
			sum := sha256.Sum256(pdf)
			_, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
			return err
		})
		invisible, shown := options(0), visible(options(0), 1, 100, 100, 260, 160)
		measure(b, name+"invisible", ceiling, func() error { _, err := Sign(pdf, invisible); return err })
		measure(b, name+"visible", ceiling, func() error { _, err := Sign(pdf, shown); return err })
	}
}

func BenchmarkVerifyThree(b *testing.B) {
	out := letter(tableKind, "1.7", "", "", "")
	for i := range 3 {
		out = mustSign(b, out, options(i))
	}
	measure(b, "12kB", 0, func() error { _, err := Verify(out, roots()); return err })
}

// measure returns the processor time of one call, and reports which share of it ceiling is.
func measure(b *testing.B, name string, ceiling time.Duration, call func() error) (each time.Duration) {
	b.Helper()
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		before := processorTime(b)
		for b.Loop() {
			if err := call(); err != nil {
				b.Fatal(err)
			}
		}
		each = (processorTime(b) - before) / time.Duration(b.N)
		b.ReportMetric(float64(each.Microseconds())/1000, "cpu-ms/op")
		if ceiling > 0 {
			b.ReportMetric(100*float64(ceiling)/float64(each), "ceiling%")
		}
	})
	return each
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
