//go:build !linux

package pdf

import "syscall"

// Where the kernel offers less, the Sandbox's wall time limit and PDFium's own memory limit remain.

func guardProcess() {}

func watchMemory() (stop func()) { return func() {} }

func allowCPU(uint64) {}

func residentMemory() int64 { return 0 }

func isolate() *syscall.SysProcAttr { return nil }
