package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/runfile"
)

func (p *patient) checkManifest(context.Context) []finding {
	return judgeManifest(p.manifest, p.manifestError)
}

func judgeManifest(m *manifest.Manifest, err error) []finding {
	const name = "manifest"
	if m == nil {
		f := finding{name, broken, err.Error(), "name one that there is, and that you may read, with --file"}
		if known, ok := errors.AsType[*failure](err); ok {
			f.Fix = known.hint
			if known.after != "" { // there is none
				f.Verdict, f.Fix = doubtful, "run it in a project's folder; `keelson up` shows a manifest to start from"
			}
			if known.detail != "" {
				f.Fix = "mend " + strings.ReplaceAll(known.detail, "\n", "; ")
			}
		}
		return []finding{f}
	}
	found := []finding{{name, fine, fmt.Sprintf("%s: %s, %s", m.Path, plural(len(m.Services), "service"), plural(len(m.Gateway.Routes), "route")), ""}}
	for _, w := range m.Warnings() {
		found = append(found, finding{name, doubtful, strings.TrimSuffix(w.Error(), "; "+w.Fix), orText(w.Fix, "change it, if it is not meant")})
	}
	return found
}

func (p *patient) checkFolder(context.Context) []finding {
	info, err := os.Lstat(p.folder())
	return []finding{judgeFolder(p.folder(), info, err, os.Geteuid())}
}

// judgeFolder judges the working folder: programs are run from it, and there are
// keys and credentials in it.
func judgeFolder(path string, info fs.FileInfo, err error, uid int) finding {
	f := finding{Check: "working folder", Verdict: broken}
	if errors.Is(err, fs.ErrNotExist) {
		f.Verdict, f.Message = fine, path+" is not there yet; `keelson up` makes it"
		return f
	}
	if err != nil {
		f.Message, f.Fix = err.Error(), "see who may read the folders above it"
		return f
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	perm := info.Mode().Perm()
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		f.Verdict, f.Message = doubtful, path+" is a symbolic link: who owns the link decides where it leads"
		f.Fix = "make it a folder"
	case !info.IsDir():
		f.Message, f.Fix = path+" is no folder", "move it away"
	case known && int(owner.Uid) != uid:
		f.Message = fmt.Sprintf("%s belongs to another user (uid %d)", path, owner.Uid)
		f.Fix = fmt.Sprintf("sudo chown -R %d %s, or run as that user", uid, path)
	case perm&0o022 != 0:
		f.Message = fmt.Sprintf("%s can be changed by others (mode %04o)", path, perm)
		f.Fix = "chmod 700 " + path
	case perm&0o055 != 0:
		f.Verdict = doubtful
		f.Message = fmt.Sprintf("%s can be looked into by others (mode %04o)", path, perm)
		f.Fix = "chmod 700 " + path
	default:
		f.Verdict, f.Message = fine, path+" is yours alone"
	}
	return f
}

func (p *patient) checkKey(context.Context) []finding {
	path := filepath.Join(p.folder(), "dev.key")
	_, err := os.Lstat(path)
	if err == nil {
		_, err = auth.LoadOrCreateDevKey(path)
	}
	return []finding{judgeKey(path, err)}
}

func judgeKey(path string, err error) finding {
	const name = "token key"
	switch {
	case err == nil:
		return finding{name, fine, path + " is yours alone, and a key", ""}
	case errors.Is(err, fs.ErrNotExist):
		return finding{name, fine, "there is none yet; `keelson up` or `keelson token` makes it", ""}
	case errors.Is(err, fs.ErrPermission):
		return finding{name, broken, err.Error(), "run as the user who owns it"}
	}
	fix := "chmod 600 " + path
	if !strings.Contains(err.Error(), "chmod 600") {
		fix = "delete it: a new one is made, and tokens of the old one are worth nothing any more"
	}
	return finding{name, broken, err.Error(), fix}
}

func (p *patient) checkLock(context.Context) []finding {
	l := lockLook{run: p.run, runs: p.runs, err: p.runError}
	for _, c := range p.run.Children {
		if !p.runs && c.Alive() {
			l.left = append(l.left, c.PID)
		}
	}
	if l.err == nil {
		l.held, l.holder, l.err = lockHolder(filepath.Join(p.folder(), "lock"))
	}
	return []finding{judgeLock(l)}
}

// lockLook is what the lock and the run file say.
type lockLook struct {
	held   bool
	holder string // what it wrote into the lock
	run    runfile.File
	runs   bool
	left   []int // processes that a run that was killed has left
	err    error
}

// lockHolder tells who has the lock. For the moment of the look it is shared, so
// an `up` that starts in that very moment would think it taken.
func lockHolder(path string) (held bool, holder string, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	defer f.Close() // which gives it back
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return false, "", err
	}
	text := make([]byte, 128)
	n, _ := f.Read(text) // only to name it
	return true, strings.TrimSpace(string(text[:n])), nil
}

func judgeLock(l lockLook) finding {
	const name = "earlier runs"
	pid, command, _ := strings.Cut(l.holder, " ")
	who := fmt.Sprintf("`%s` (pid %s)", orText(command, "keelson up"), orText(pid, "unknown"))
	switch {
	case l.err != nil:
		return finding{name, broken, l.err.Error(), "if nothing runs here, remove that file"}
	case l.held && l.runs:
		return finding{name, fine, who + " runs here", ""}
	case l.held:
		return finding{name, doubtful, who + " has the lock, but no run file says where it answers", "wait, if it is just starting or stopping; else stop it: kill " + orText(pid, "PID")}
	case l.runs:
		return finding{name, doubtful, fmt.Sprintf("pid %d runs without the lock: a second system could start beside it", l.run.PID), "restart it; never remove .keelson while it runs"}
	case len(l.left) > 0:
		return finding{name, doubtful, fmt.Sprintf("an earlier run was killed and left processes running: %v", l.left), "start `keelson up`: it ends them first"}
	case l.run.PID != 0:
		return finding{name, fine, fmt.Sprintf("an earlier run (pid %d) was killed; the next `keelson up` cleans up behind it", l.run.PID), ""}
	}
	return finding{name, fine, "nothing runs here, and nothing was left behind", ""}
}

// portUse is a port of the manifest and who has it.
type portUse struct {
	part, addr, key string // such as "gateway", 127.0.0.1:3000, gateway.listen
	free            bool
	holder          ports.Holder
	seen            bool // holder is known
	runs, ours      bool // whether our `up` runs, and the holder is of it
	err             error
}

func (p *patient) checkPorts(ctx context.Context) []finding {
	if p.manifest == nil {
		return []finding{{"ports", skipped, "without a manifest nobody knows which", ""}}
	}
	var found []finding
	for _, use := range portsOf(p.manifest) {
		use.runs = p.runs
		if use.holder, use.seen = ports.Find(use.addr); use.seen {
			use.ours = p.runs && p.isOurs(use.holder.PID)
		} else {
			use.free, use.err = ports.Free(ctx, use.addr)
		}
		found = append(found, judgePort(use))
	}
	return found
}

// portsOf returns the ports that a manifest fixes.
func portsOf(m *manifest.Manifest) []portUse {
	all := []portUse{
		{part: "gateway", addr: m.Gateway.Listen, key: "gateway.listen"},
		{part: "admin API", addr: m.Admin.Listen, key: "admin.listen"},
	}
	if m.Engine.URL == "" {
		all = append(all, portUse{part: "engine", addr: m.Engine.Listen, key: "engine.listen"})
	}
	for _, name := range m.Order() {
		if port := m.Services[name].Port; port > 0 {
			all = append(all, portUse{part: name, addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), key: "services." + name + ".port"})
		}
	}
	return slices.DeleteFunc(all, func(u portUse) bool { return u.addr == "" || strings.HasSuffix(u.addr, ":0") })
}

// isOurs reports whether a process is of the system that runs here: itself, or
// one of its children and theirs, which share a process group.
func (p *patient) isOurs(pid int) bool {
	if pid == p.run.PID {
		return true
	}
	group, err := unix.Getpgid(pid)
	return slices.ContainsFunc(p.run.Children, func(c runfile.Child) bool { return c.PID == pid || err == nil && c.PID == group })
}

func judgePort(u portUse) finding {
	_, port, _ := net.SplitHostPort(u.addr)
	f := finding{Check: "port " + port, Verdict: fine}
	switch {
	case u.err != nil:
		f.Verdict, f.Message = broken, fmt.Sprintf("%s can't listen on %s: %v", u.part, u.addr, u.err)
		f.Fix = "set " + u.key + " to an address of this machine and a port above 1023"
	case u.seen && u.ours:
		f.Message = fmt.Sprintf("%s: held by %s of the running system", u.part, u.holder)
	case u.seen:
		f.Verdict, f.Message = broken, fmt.Sprintf("%s: %s is in use by %s", u.part, u.addr, u.holder)
		f.Fix = fmt.Sprintf("stop it (kill %d), or set %s in %s", u.holder.PID, u.key, manifest.Name)
	case u.free && u.runs:
		f.Verdict, f.Message = doubtful, fmt.Sprintf("%s: nobody listens on %s, although `keelson up` runs", u.part, u.addr)
		f.Fix = "see `keelson status`; if the manifest was changed, restart `keelson up`"
	case u.free:
		f.Message = u.part + ": free"
	case u.runs:
		f.Message = u.part + ": held; whose it is this system does not tell, but `keelson up` runs"
	default:
		f.Verdict, f.Message = broken, fmt.Sprintf("%s: %s is in use by a process that can't be seen from here", u.part, u.addr)
		f.Fix = fmt.Sprintf("find it (sudo ss -ltnp 'sport = :%s'), or set %s in %s", port, u.key, manifest.Name)
	}
	return f
}
