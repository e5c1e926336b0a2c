package hot_test

import (
	"bytes"
	"testing"
	"time"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/redisserver/redistest"
)

// The metric is the rate relative to a bare GET of the same bytes in the same run: machines differ, the ratio hardly.
func benchmark(b *testing.B, call func(i int) error, bare func() error) {
	for _, f := range []func() error{func() error { return call(0) }, bare} {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	var calls, bares time.Duration
	for i := range b.N { // interleaved, so that a busy moment of the machine hits both
		took := clock.Stopwatch()
		err := call(i + 1)
		calls += took()
		took = clock.Stopwatch()
		if err2 := bare(); err != nil || err2 != nil {
			b.Fatal(err, err2)
		}
		bares += took()
	}
	b.ReportMetric(float64(bares)/float64(calls), "x-GET")
	b.ReportMetric(float64(calls.Nanoseconds())/float64(b.N), "ns/call")
}

func BenchmarkGetAndPut(b *testing.B) {
	rdb, value := redistest.Real(b), bytes.Repeat([]byte("x"), 300)
	s := hot.New(rdb, patient)
	bare := func() error { return rdb.Get(b.Context(), "bare").Err() }
	rdb.Set(b.Context(), "bare", value, 0)
	if _, err := s.Put(b.Context(), "kept", 1, value, time.Hour); err != nil {
		b.Fatal(err)
	}
	b.Run("Get", func(b *testing.B) {
		benchmark(b, func(int) error { _, _, err := s.Get(b.Context(), "kept"); return err }, bare)
	})
	next := uint64(1) // each Put of the first is newer than the one before it, whatever b.N
	b.Run("PutNewer", func(b *testing.B) {
		benchmark(b, func(int) error { next++; _, err := s.Put(b.Context(), "new", next, value, time.Hour); return err }, bare)
	})
	b.Run("PutOlder", func(b *testing.B) {
		benchmark(b, func(int) error { _, err := s.Put(b.Context(), "kept", 1, value, time.Hour); return err }, bare)
	})
}
