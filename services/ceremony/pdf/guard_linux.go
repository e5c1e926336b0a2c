package pdf

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	watchEvery = 20 * time.Millisecond
	hardData   = 2 << 30   // private writable memory, by the kernel; the watch below acts first
	hardFile   = 128 << 20 // the compile cache is the only file a helper writes
	hardFiles  = 64        // open ones
)

// guardProcess puts the helper under its limits: memory by watchMemory (address space limits are of no use for Go, which
// reserves far more than it uses), the rest by the kernel. It also gives up dumping core, which would hold the document.
func guardProcess() {
	for resource, limit := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_DATA: hardData, unix.RLIMIT_FSIZE: hardFile, unix.RLIMIT_NOFILE: hardFiles} {
		_ = unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}) // best effort: a container may forbid it
	}
	overtime := make(chan os.Signal, 1)
	signal.Notify(overtime, unix.SIGXCPU) // Go ignores it otherwise
	go func() {
		<-overtime
		os.Exit(exitTime)
	}()
}

// watchMemory ends the process when it outgrows its memory, until stop is called. It runs only while there is a job:
// an idle helper should not wake the machine fifty times a second.
func watchMemory() (stop func()) {
	ticker, done := time.NewTicker(watchEvery), make(chan struct{})
	go func() {
		for {
			select {
			case <-ticker.C:
				if residentMemory() > hardMemory {
					os.Exit(exitMemory)
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(done)
	}
}

// allowCPU grants the process seconds of CPU from now on.
func allowCPU(seconds uint64) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return
	}
	limit := uint64(used.Utime.Sec+used.Stime.Sec) + seconds + 1
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CPU, &now); err != nil {
		return
	}
	now.Cur = min(limit, now.Max)
	_ = unix.Setrlimit(unix.RLIMIT_CPU, &now) // the wall time limit of the Sandbox stands behind it
}

// residentMemory returns the bytes of memory the process really holds, or 0 where that cannot be read.
func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// isolate starts the helper in a process group of its own, so that a Ctrl-C meant for the service is not the helper's end.
func isolate() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
