//go:build !linux

package main

import "syscall"

// buildAttributes give a build a process group of its own.
func buildAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
