package redisserver

import "syscall"

// childAttr ties the child's life to ours, and keeps the terminal's Ctrl-C from it: we stop it after what uses it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
