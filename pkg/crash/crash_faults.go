//go:build faults

// Package crash names the points at which a fault test kills the process.
package crash

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	name, nth = target(os.Getenv("COUNTERSIGN_CRASH"))
	seen      atomic.Int64
)

// target reads "name" or "name#3" (the third time).
func target(spec string) (string, int64) {
	name, count, _ := strings.Cut(spec, "#")
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		n = 1
	}
	return name, n
}

// Point kills the process as kill -9 does when COUNTERSIGN_CRASH names it for the n-th time.
func Point(p string) {
	if name == "" || p != name || seen.Add(1) != nth {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
