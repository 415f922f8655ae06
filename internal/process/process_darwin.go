package process

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const zombie = 5 // SZOMB of sys/proc.h

func inspect(pid int) (status, error) {
	p, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EIO) {
		return status{}, ErrGone // EIO: x/sys's word for an empty answer
	}
	if err != nil {
		return status{}, err
	}
	if int(p.Proc.P_pid) != pid {
		return status{}, ErrGone
	}
	at := p.Proc.P_starttime
	return status{
		start:  fmt.Sprintf("%d.%06d", at.Sec, at.Usec),
		zombie: p.Proc.P_stat == zombie,
		pgid:   int(p.Eproc.Pgid),
	}, nil
}

func groupRuns(pgid int) bool {
	all, err := unix.SysctlKinfoProcSlice("kern.proc.pgrp", pgid)
	if err != nil {
		return true
	}
	for _, p := range all {
		if p.Proc.P_stat != zombie {
			return true
		}
	}
	return false
}
