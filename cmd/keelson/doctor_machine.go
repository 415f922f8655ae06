package main

import (
	"context"
	"errors"
	"fmt"
	goversion "go/version"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/internal/manifest"
)

const (
	leastGo = "go1.26" // to build services with

	fewBytes     = 1 << 30 // of free disk space: it is time to look
	tooFewBytes  = 100 << 20
	fewInodes    = 10_000
	tooFewInodes = 500

	fewFiles    = 1024 // open at once: each connection is one
	tooFewFiles = 256

	// A clock that is wrong by less is right: the admin API's has whole seconds.
	slightSkew = 2 * time.Second
)

func (p *patient) checkDisk(context.Context) []finding {
	path := existing(p.folder())
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return []finding{{"disk space", doubtful, fmt.Sprintf("the disk of %s does not say how full it is: %v", path, err), "look at it: df -h " + path}}
	}
	return []finding{
		judgeSpace(path, s.Bavail*uint64(s.Bsize)),
		judgeInodes(path, s.Ffree, s.Files),
	}
}

func judgeSpace(path string, free uint64) finding {
	f := finding{"disk space", fine, fmt.Sprintf("%s is free where %s is", size(free), path), ""}
	switch {
	case free < tooFewBytes:
		f.Verdict = broken
	case free < fewBytes:
		f.Verdict = doubtful
	default:
		return f
	}
	f.Message = "only " + f.Message
	f.Fix = "make room: the engine and the services' databases need it"
	return f
}

// judgeInodes judges how many files can still be made. Some file systems have no
// such limit, and say 0 of 0.
func judgeInodes(path string, free, all uint64) finding {
	f := finding{"disk inodes", fine, fmt.Sprintf("%d more files fit where %s is", free, path), ""}
	switch {
	case all == 0:
		f.Message = "the file system has no limit of files"
		return f
	case free < tooFewInodes:
		f.Verdict = broken
	case free < fewInodes:
		f.Verdict = doubtful
	default:
		return f
	}
	f.Message = "only " + f.Message
	f.Fix = "delete what has many small files, such as caches: df -i " + path
	return f
}

// size is a number of bytes as people read it.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

func (p *patient) checkFiles(context.Context) []finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return []finding{{"open files", skipped, "this system tells no limit: " + err.Error(), ""}}
	}
	// The Go runtime has raised it as far as it may be, as it does for `up`.
	return []finding{judgeFiles(limit.Cur)}
}

func judgeFiles(limit uint64) finding {
	f := finding{"open files", fine, fmt.Sprintf("a process may have %d open", limit), ""}
	switch {
	case limit >= 1<<31:
		f.Message = "a process may have as many open as it likes"
		return f
	case limit < tooFewFiles:
		f.Verdict = broken
	case limit < fewFiles:
		f.Verdict = doubtful
	default:
		return f
	}
	f.Message = fmt.Sprintf("a process may have only %d open, connections included", limit)
	f.Fix = "raise it: ulimit -n 65536 in the shell, LimitNOFILE=65536 in a systemd unit, --ulimit nofile=65536 for a container"
	return f
}

// goLook is what the go command says of itself.
type goLook struct {
	version   string // such as go1.26.1
	toolchain string // GOTOOLCHAIN
	packages  int    // services that are built with it
	err       error
}

func (p *patient) checkGo(ctx context.Context) []finding {
	look := goLook{packages: built(p.manifest)}
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION", "GOTOOLCHAIN")
	cmd.Dir = "/" // in a module's folder it might fetch the version that go.mod names
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	look.err = err
	look.version, look.toolchain, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return []finding{judgeGo(look)}
}

// built is how many of the services are built from Go packages.
func built(m *manifest.Manifest) int {
	n := 0
	if m != nil {
		for _, s := range m.Services {
			if s.Package != "" {
				n++
			}
		}
	}
	return n
}

func judgeGo(l goLook) finding {
	f := finding{Check: "go", Verdict: broken, Fix: "install Go 1.26 or later: https://go.dev/dl/"}
	if l.packages == 0 {
		f.Verdict = doubtful
	}
	// A development version is called "devel go1.27-1a2b3c4d …".
	number := l.version
	if words := strings.Fields(number); len(words) > 1 && words[0] == "devel" {
		number, _, _ = strings.Cut(words[1], "-")
	}
	switch {
	case errors.Is(l.err, exec.ErrNotFound) && l.packages == 0:
		return finding{"go", fine, "the go command is not in PATH, and no service of the manifest needs it", ""}
	case errors.Is(l.err, exec.ErrNotFound):
		f.Message = fmt.Sprintf("the go command is not in PATH, and it is to build %s", plural(l.packages, "service"))
	case l.err != nil:
		f.Message = "the go command does not work: " + l.err.Error()
	case !goversion.IsValid(number):
		f.Verdict, f.Message = doubtful, fmt.Sprintf("the go command is of a version nobody can compare: %q", l.version)
	case goversion.Compare(number, leastGo) >= 0:
		return finding{"go", fine, number, ""}
	case goversion.Compare(number, "go1.21") >= 0 && (strings.Contains(l.toolchain, "auto") || strings.Contains(l.toolchain, "path")):
		f.Verdict, f.Message = doubtful, number+" is too old by itself; it fetches a later one at the first build"
	default:
		f.Message = number + " is too old"
	}
	return f
}

// clockLook is what there is to know of the clock.
type clockLook struct {
	now          time.Time
	synced       bool // by NTP or the like
	known        bool // synced is known
	began        time.Time
	skew         time.Duration // of the admin API's clock against ours, 0 if it is right or unknown
	compared     bool
	comparedWith string
}

func (p *patient) checkClock(context.Context) []finding {
	look := clockLook{now: time.Now()}
	look.synced, look.known = clockSynced()
	if p.runs {
		look.began = p.run.StartedAt
	}
	if s, err := p.system(); err == nil && !s.date.IsZero() {
		look.compared, look.comparedWith = true, s.base
		look.skew = skew(s.asked, s.answered, s.date)
	}
	return []finding{judgeClock(look)}
}

// skew returns how far a clock that said date, in whole seconds, at some time
// between asked and answered is surely ahead of ours, or behind.
func skew(asked, answered, date time.Time) time.Duration {
	switch {
	case date.After(answered):
		return date.Sub(answered)
	case date.Add(time.Second).Before(asked):
		return -asked.Sub(date.Add(time.Second))
	}
	return 0
}

func judgeClock(l clockLook) finding {
	const setIt = "set the clock: sudo timedatectl set-ntp true, or run chrony (for a container, on its host)"
	f := finding{"clock", broken, "", setIt}
	far := max(l.skew, -l.skew)
	switch {
	case l.now.Year() < 2026 || l.now.Year() > 2126:
		f.Message = fmt.Sprintf("it says %s, which can't be: tokens and certificates will not hold", l.now.Format(time.DateTime))
	case far > auth.DefaultLeeway:
		f.Message = fmt.Sprintf("it differs by %v from that of %s: tokens are refused", far.Round(time.Second), l.comparedWith)
	case far > slightSkew:
		f.Verdict, f.Message = doubtful, fmt.Sprintf("it differs by %v from that of %s", far.Round(time.Second), l.comparedWith)
	case l.began.After(l.now.Add(slightSkew)):
		f.Verdict, f.Message = doubtful, fmt.Sprintf("it was set back: the running system began at %s, which is still to come", l.began.Local().Format(time.DateTime))
	case l.known && !l.synced:
		f.Verdict, f.Message = doubtful, "nothing keeps it right: the kernel says that it is not synchronized"
	default:
		parts := []string{l.now.Local().Format(time.DateTime)}
		if l.known {
			parts = append(parts, "synchronized")
		}
		if l.compared {
			parts = append(parts, "the same as that of "+l.comparedWith)
		}
		return finding{"clock", fine, strings.Join(parts, ", "), ""}
	}
	return f
}
