package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// Pause stops all processes of the server with SIGSTOP: connections stay open,
// and nothing answers on them.
func (s *Server) Pause(ctx context.Context) error {
	if s.process == nil || s.paused != nil {
		return errors.New("pause PostgreSQL: it does not run")
	}
	waker, err := startWaker()
	if err != nil {
		return fmt.Errorf("pause PostgreSQL: %w", err)
	}
	s.waker = waker
	err = s.connected(ctx, func(c *pgx.Conn) error {
		// First the one that starts the others.
		if err := s.stop(s.process.pid); err != nil {
			return err
		}
		rows, err := c.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
		if err != nil {
			return err
		}
		others, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		for _, pid := range others {
			if err := s.stop(pid); err != nil && !errors.Is(err, syscall.ESRCH) { // else it has gone
				return err
			}
		}
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("pause PostgreSQL: %w", err), s.Resume())
	}
	return nil
}

// stop stops one process, which Resume lets go on.
func (s *Server) stop(pid int) error {
	if err := s.waker.add(pid); err != nil {
		return err
	}
	s.paused = append(s.paused, pid)
	return syscall.Kill(pid, syscall.SIGSTOP)
}

// Resume lets a paused server go on. It does nothing for one that is not paused.
func (s *Server) Resume() error {
	for _, pid := range s.paused {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("resume PostgreSQL: %w", err)
		}
	}
	s.paused = nil
	if s.waker != nil {
		s.waker.dismiss()
		s.waker = nil
	}
	return nil
}

// waker is a process that lets paused ones go on when we die: the signal of our
// death does not reach a process that is stopped.
type waker struct {
	cmd  *exec.Cmd
	pids io.WriteCloser // the end of this pipe is our death
}

func startWaker() (*waker, error) {
	cmd := exec.Command("/bin/sh", "-c", `while read -r pid; do pids="$pids $pid"; done; kill -CONT $pids`) //nolint:noctx // It ends with dismiss, or after us.
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not to die of what kills us
	pids, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &waker{cmd: cmd, pids: pids}, cmd.Start()
}

func (w *waker) add(pid int) error {
	_, err := fmt.Fprintln(w.pids, pid)
	return err
}

// dismiss ends the waker; there is nothing left to do for it.
func (w *waker) dismiss() {
	_ = w.cmd.Process.Kill() // or it has ended
	_ = w.cmd.Wait()         // by the signal, which is an error
	w.pids.Close()
}
