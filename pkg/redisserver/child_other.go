//go:build !linux && unix

package redisserver

import "syscall"

// childAttr keeps the terminal's Ctrl-C from the child: we stop it after what uses it. There is no tie to our life here.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
