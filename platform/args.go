package platform

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/workspace"
	"github.com/keelson-go/keelson/lifecycle"
)

// Where gateway and admin API of Main listen.
const (
	defaultGateway = "127.0.0.1:3000"
	defaultAdmin   = "127.0.0.1:3100"
)

// Exit codes of Main that join.Main doesn't have.
const (
	exitAuth     = 4
	exitConflict = 6
)

// usageError is a mistake in the arguments.
type usageError struct{ message, usage string }

func (e *usageError) Error() string { return e.message }

// parse reads the arguments behind the program's name into m.flags. The flags may stand before
// and after "all".
func (m *monolith) parse(args []string) error {
	f := &m.flags
	refuse := func(format string, args ...any) error {
		return &usageError{fmt.Sprintf(format, args...), m.usage()}
	}
	set := flag.NewFlagSet(m.program, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.BoolVar(&f.ephemeral, "ephemeral", false, "")
	set.BoolVar(&f.noInProcess, "no-in-process", m.config.NoInProcess, "")
	set.StringVar(&f.gateway, "gateway", cmp.Or(m.config.GatewayListen, defaultGateway), "")
	set.StringVar(&f.admin, "admin", cmp.Or(m.config.AdminListen, defaultAdmin), "")
	set.StringVar(&f.engine, "engine", m.config.Engine.Listen, "")
	f.ports = map[string]int{}
	set.Func("port", "", func(v string) error {
		name, port, _ := strings.Cut(v, "=")
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || find(m.services, name) < 0 {
			return errors.New("give the name of a service here and a port, as in user-service=3001")
		}
		f.ports[name] = int(n)
		return nil
	})
	level := set.String("log-level", cmp.Or(os.Getenv("KEELSON_LOG_LEVEL"), "info"), "")
	all := false
	for rest := args; ; {
		if err := set.Parse(rest); errors.Is(err, flag.ErrHelp) {
			return err
		} else if err != nil {
			return refuse("%v", err)
		}
		if set.NArg() == 0 {
			break
		}
		switch name := set.Arg(0); {
		case name != "all":
			return refuse("there is no service %q here", name)
		case all:
			return refuse("all is given twice")
		}
		all = true
		rest = set.Args()[1:]
	}
	for name, addr := range map[string]string{"gateway": f.gateway, "admin": f.admin, "engine": f.engine} {
		if addr == "" && name == "engine" {
			continue
		}
		if _, port, err := net.SplitHostPort(addr); err != nil || !number(port) {
			return refuse("--%s is %q: give host:port, such as 127.0.0.1:3000, or port 0 for a free one", name, addr)
		}
	}
	if f.engine != "" && m.config.External.URL != "" {
		return refuse("--engine is given, but the engine runs elsewhere, at %s", m.config.External.URL)
	}
	if err := f.logLevel.UnmarshalText([]byte(*level)); err != nil {
		return refuse("--log-level is %q: use debug, info, warn or error", *level)
	}
	return nil
}

// number reports whether s is a port's number.
func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

func (m *monolith) usage() string {
	var names []string
	for _, s := range m.services {
		names = append(names, s.Name)
	}
	return fmt.Sprintf(`usage: %[1]s [all] [flags]              everything in one process
       %[1]s SERVICE [--standalone]     one service, which joins a running system

services: %[2]s

flags of all:
  --ephemeral            keep no data
  --gateway HOST:PORT    where the gateway listens (%[3]s)
  --admin HOST:PORT      where the admin API listens (%[4]s)
  --engine HOST:PORT     where other processes reach the engine (%[5]s)
  --port SERVICE=PORT    where a service listens, 0 for a free port; repeat for several
  --no-in-process        have the services here call one another over their sockets
  --log-level LEVEL      debug, info, warn or error (info)

Keys, data and the run file are in the folder %[6]s here.
`, m.program, strings.Join(names, ", "), cmp.Or(m.config.GatewayListen, defaultGateway), cmp.Or(m.config.AdminListen, defaultAdmin),
		cmp.Or(m.config.Engine.Listen, "a free port of loopback"), runfile.Folder)
}

// banner says what is up, where, and what to try.
func (m *monolith) banner(p *Platform, devKey bool, took time.Duration) {
	var b strings.Builder
	fmt.Fprintf(&b, "\nEverything is up in %.2fs\n\n", took.Seconds())
	row := func(title, text string) { fmt.Fprintf(&b, "  %-9s %s\n", title, text) }
	row("gateway", p.GatewayURL())
	row("admin API", p.AdminURL()+"/v1/services")
	title := "services"
	for _, s := range p.members {
		if made := s.service.Load(); made != nil && made.Addr() != nil {
			row(title, fmt.Sprintf("http://%s  %s", made.Addr(), made.Instance()))
			title = ""
		}
	}
	title = "routes"
	for _, r := range m.config.Gateway.Routes {
		to := []string{r.Service}
		for i, backend := range r.Backends {
			to = append(to[:i], backend.Service)
		}
		row(title, r.Path+" → "+strings.Join(to, ", "))
		title = ""
	}
	if routes := m.config.Gateway.Routes; len(routes) > 0 {
		header := `-H "Authorization: Bearer $TOKEN" `
		switch {
		case routes[0].Public:
			header = ""
		case devKey:
			header = `-H "Authorization: Bearer $(keelson token)" `
		}
		fmt.Fprintf(&b, "\n  Try it:\n\n  curl %s%s%s\n", header, p.GatewayURL(), path.Clean(strings.TrimSuffix(routes[0].Path, "*")))
	}
	m.say("%s\n  Ctrl-C stops everything.\n", &b)
}

// explain tells a person what went wrong and what to do about it, and returns the
// exit code.
func (m *monolith) explain(err error) int {
	code, message, hint := join.ExitFailed, err.Error(), ""
	if wrong, ok := errors.AsType[*usageError](err); ok {
		m.say("%s: %s\n\n%s", m.program, wrong.message, strings.TrimSuffix(wrong.usage, "\n"))
		return join.ExitUsage
	}
	busy, isBusy := errors.AsType[*BusyError](err)
	locked, isLocked := errors.AsType[*workspace.LockedError](err)
	switch {
	case isBusy:
		code = exitConflict
		message, hint = busyPort(busy.Part, busy.Addr, map[string]string{"gateway": "--gateway", "admin API": "--admin"}[busy.Part])
		if find(m.services, busy.Part) >= 0 {
			hint += fmt.Sprintf(", or give it another one with --port %s=0", busy.Part)
		}
	case isLocked:
		code, message = exitConflict, locked.Error()
		hint = "stop it first, or use its gateway: its addresses are in " + runfile.Path(locked.Project)
	case isA[*embedded.LockedError](err):
		code = exitConflict
	case errors.Is(err, syscall.EADDRINUSE):
		code = exitConflict
		message, hint = busyPort("the engine", m.flags.engine, "--engine")
	case errors.Is(err, workspace.ErrNotPrivate):
		hint = "make it yours alone: chown it to you, and chmod 700 it"
	case errors.Is(err, console.ErrOpenToOthers):
		code, hint = join.ExitUsage, "give --admin an address of 127.0.0.1 or [::1]"
	case isA[*gateway.ConfigError](err), isA[*engine.ConfigError](err), isA[*embedded.ConfigError](err):
		code = join.ExitUsage
	case errors.Is(err, engine.ErrUnreachable), errors.Is(err, engine.ErrNoJetStream):
		code, hint = join.ExitUnreachable, "start the engine, or check its address"
	case errors.Is(err, engine.ErrCredentials), errors.Is(err, engine.ErrTLS):
		code, hint = exitAuth, "check the engine's credentials"
	case errors.Is(err, lifecycle.ErrForced):
		message = "stopped by a second signal before everything had drained:\n" + message
	case errors.Is(err, lifecycle.ErrStopTimeout):
		hint = "what is named took too long to stop and was cut off"
	}
	m.say("error: %s", message)
	if hint != "" {
		m.say(" hint: %s", hint)
	}
	return code
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// busyPort says who holds a port, and how another one is chosen: by a flag, if
// there is one for it.
func busyPort(part, addr, flag string) (message, hint string) {
	message, hint = fmt.Sprintf("%s can't listen on %s: the port is in use", part, addr), "stop what holds it"
	if h, ok := ports.Find(addr); ok && h.PID != os.Getpid() {
		message += " by " + h.String()
		hint = fmt.Sprintf("stop it (kill %d)", h.PID)
	}
	if flag != "" {
		hint += fmt.Sprintf(", or give another one with %s", flag)
	}
	return message, hint
}
