//go:build unix

package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// guardScript reads process groups to know (+) and to forget (-) from its
// standard input, and kills those it knows when the input ends: then nobody is
// left who could. Whoever wants to end it must end its input.
const guardScript = `
trap '' HUP INT QUIT TERM
echo on duty
known=
while read -r op group; do
	case $op in
	+) known="$known $group" ;;
	-)
		rest=
		for g in $known; do [ "$g" = "$group" ] || rest="$rest $g"; done
		known=$rest
		;;
	esac
done
for g in $known; do kill -s KILL -- "-$g" 2>/dev/null; done
exit 0
`

// guard is a process that kills the children's groups when this process ends
// without having done so. A parent-death signal reaches only the children
// themselves, and there is none outside Linux.
type guard struct {
	cmd *exec.Cmd

	mu   sync.Mutex
	pipe *os.File // its input; nobody else has this end
}

// startGuard starts the guard. Where the kernel does the most important part
// itself the guard may be missing, as in an image without a shell: then it
// returns one that does nothing.
func startGuard() (*guard, error) {
	g, err := newGuard()
	if err != nil && guardOptional {
		return &guard{}, nil
	}
	return g, err
}

func newGuard() (*guard, error) {
	in, pipe, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard of child processes: %w", err)
	}
	defer in.Close()
	says, out, err := os.Pipe()
	if err != nil {
		_ = pipe.Close()
		return nil, fmt.Errorf("start the guard of child processes: %w", err)
	}
	defer says.Close()
	cmd := exec.Command("/bin/sh", "-c", guardScript) //nolint:noctx // It ends with its input.
	cmd.Stdin, cmd.Stdout = in, out
	cmd.Env = []string{}                                  // nothing secret in a process that lives on after us
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no Ctrl-C
	err = cmd.Start()
	_ = out.Close() // the guard has its own
	if err != nil {
		_ = pipe.Close()
		return nil, fmt.Errorf("start the guard of child processes: %w", err)
	}
	g := &guard{cmd: cmd, pipe: pipe}
	if _, err := says.Read(make([]byte, 1)); err != nil {
		g.close()
		return nil, fmt.Errorf("start the guard of child processes: the shell ended: %w", err)
	}
	return g, nil
}

func (g *guard) add(pgid int)    { g.tell('+', pgid) }
func (g *guard) remove(pgid int) { g.tell('-', pgid) }

// tell ignores a guard that somebody has killed: the children are not worse
// off than without one.
func (g *guard) tell(op rune, pgid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pipe != nil {
		_, _ = fmt.Fprintf(g.pipe, "%c %d\n", op, pgid)
	}
}

// close ends the guard and waits for it.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pipe == nil {
		return
	}
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
	g.pipe = nil
}
