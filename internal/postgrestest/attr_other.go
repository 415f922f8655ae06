//go:build unix && !linux

package postgrestest

import "syscall"

// attributes are those of a process that runs as the account and is spared a
// Ctrl-C meant for us. Only Linux can end it with us.
func attributes(as *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as, Setpgid: true}
}
