//go:build unix && !linux

package supervise

import "syscall"

// guardOptional: without the guard the children would outlive us.
const guardOptional = false

// childAttr gives a child a process group of its own.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
