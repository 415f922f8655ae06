package main

import "syscall"

// buildAttributes give a build a process group of its own, and end it if we are
// killed.
func buildAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
