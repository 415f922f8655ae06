package supervise

import "syscall"

// guardOptional: the kernel ends the children itself; the guard only adds
// what they have started in turn.
const guardOptional = true

// childAttr gives a child a process group of its own, and has the kernel kill
// it when the thread that started it ends, which lives as long as we do.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
