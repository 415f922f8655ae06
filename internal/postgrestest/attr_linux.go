package postgrestest

import "syscall"

// attributes are those of a process that runs as the account, is spared a
// Ctrl-C meant for us, and gets the signal when the thread that started it ends.
func attributes(as *syscall.Credential, onDeath syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: onDeath}
}
