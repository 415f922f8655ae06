package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/engine/embedded"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/internal/dotenv"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/ports"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/supervise"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/telemetry"
)

type upFlags struct {
	file      string
	ephemeral bool
	noWatch   bool
	logLevel  string
}

func (a *app) upCommand() *cobra.Command {
	var flags upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the project's services, gateway and engine",
		Long: "Run everything keelson.yaml names: an embedded engine, the registry, the gateway, the\n" +
			"admin API, and each service as a process of its own, built first where it is a Go package.\n" +
			"A service that crashes is started again. One whose Go source changes is built and restarted,\n" +
			"its instances one after another; what does not build leaves the running one alone. Ctrl-C\n" +
			"drains and stops everything, and so does `keelson down`.\n\n" +
			"Services get the variables of .env and .env.local beside the manifest. They yield to the\n" +
			"environment, and that to the manifest.",
		Example: "  keelson up\n  keelson up --ephemeral         # keep no data\n  keelson up --file shop.yaml\n  keelson up -o json             # the services' lines and states as NDJSON",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.up(cmd.Context(), flags) },
	}
	cmd.Flags().StringVarP(&flags.file, "file", "f", "", "manifest (default: keelson.yaml here or above)")
	cmd.Flags().BoolVar(&flags.ephemeral, "ephemeral", false, "keep no data: it goes to a folder that is removed at the end")
	cmd.Flags().BoolVar(&flags.noWatch, "no-watch", false, "don't build and restart services when their source changes")
	cmd.Flags().StringVar(&flags.logLevel, "log-level", "info", "least level that is shown: debug, info, warn or error")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func (a *app) up(ctx context.Context, flags upFlags) (err error) {
	began := time.Now()
	// Who reads our output may go; the fleet stays. Not signal.Ignore: children
	// would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var level slog.Level
	if err := level.UnmarshalText([]byte(flags.logLevel)); err != nil {
		return &failure{code: exitUsage, message: fmt.Sprintf("--log-level is %q", flags.logLevel), hint: "use debug, info, warn or error"}
	}
	m, err := loadManifest(flags.file)
	if err != nil {
		return err
	}
	variables, warnings, err := readVariables(m.Dir())
	if err != nil {
		return err
	}
	out := newPrinter(a.stdout, a.stderr, a.style(a.stdout), terminal(a.stderr), m.Order())
	out.talk, out.json = a.style(a.stderr), a.output == "json"
	defer out.close()
	for _, w := range m.Warnings() {
		out.warn("%s", w)
	}
	for _, w := range warnings {
		out.warn("%s", w)
	}
	work, err := openWorkspace(m.Dir(), flags.ephemeral)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Close()) }()
	ended, err := work.Reap(ctx)
	if ended > 0 {
		out.say("ended %d processes that an earlier run had left behind", ended)
	}
	if err != nil {
		return err
	}
	key, err := auth.LoadOrCreateDevKey(work.DevKey())
	if err != nil {
		return err
	}
	jwt, err := authenticator(ctx, m, key)
	if err != nil {
		return &failure{code: exitUsage, message: err.Error(), hint: "mend gateway.auth.jwt in " + filepath.Base(m.Path)}
	}
	defer jwt.Close()
	tel, err := telemetry.New(telemetry.Config{
		Service: "keelson", LogFormat: "text", LogLevel: level, Output: out.writer("keelson"),
	})
	if err != nil {
		return err
	}
	fleet, err := newFleet(m, work, out, flags.logLevel)
	if err != nil {
		return err
	}
	defer fleet.detach()
	fleet.variables.Store(&variables)
	fleet.watching = !flags.noWatch
	cfg := platform.Config{
		Gateway: gatewayConfig(m, jwt), GatewayListen: m.Gateway.Listen, AdminListen: m.Admin.Listen,
		Processes: fleet,
		Version:   build().Version, Telemetry: tel, Forced: a.forced,
		StopTimeout: platform.GatewayGrace + time.Duration(depth(m))*(stopGrace+time.Second) + platformGrace,
	}
	if !onLoopback("http://" + m.Admin.Listen) { // there, the machine is the border
		cfg.AdminAuthenticator = jwt
	}
	if m.Engine.URL != "" {
		out.say("connecting to the engine at %s", m.Engine.URL)
		cfg.External = engine.Config{URL: m.Engine.URL, Credentials: credentialsOf(m), Name: "keelson up", Logger: tel.Logger()}
	} else {
		listen, credentials := work.EngineListen(ctx, m.Engine.Listen)
		cfg.Engine = embedded.Config{
			Dir: work.EngineDir(), Listen: listen, Credentials: credentials,
			Durability: engine.Durability(m.Engine.Durability), Logger: tel.Logger(),
		}
	}
	p, err := platform.Listen(ctx, cfg)
	if err != nil {
		return explain(err, m)
	}
	defer p.Close()
	err = work.Note(func(r *runfile.File) { r.Gateway, r.Admin = p.GatewayURL(), p.AdminURL() })
	if err != nil {
		return err
	}
	if err := fleet.attach(ctx, p); err != nil {
		return err
	}
	p.Add("services", func(ctx context.Context, ready func()) error {
		ready() // the gateway answers while services build; it says 503 for them
		return fleet.run(ctx, a.forced, began, func() {
			out.banner(out.talk, m, p, key, time.Since(began))
		})
	})
	p.Add("manifest", func(ctx context.Context, ready func()) error {
		ready()
		followManifest(ctx, m, out, func(next *manifest.Manifest) error {
			return p.Reload(gatewayConfig(next, jwt))
		})
		return nil
	})
	p.Add("variables", func(ctx context.Context, ready func()) error {
		ready()
		followFiles(ctx, m.Dir(), dotenv.Files[:], out, fleet.variablesChanged)
		return nil
	})
	told := work.NoteStop(ctx)
	err = p.Run(ctx)
	told()
	// A Ctrl-C reaches a child, too, that was forked but has no process group of
	// its own yet.
	if start, ok := errors.AsType[*supervise.StartError](err); ok && ctx.Err() != nil && start.Exit.Signal == syscall.SIGINT {
		err = nil
	}
	if err == nil {
		out.say("everything is stopped")
	}
	return explain(err, m)
}

// platformGrace is for admin API, registry and engine to stop.
const platformGrace = 5 * time.Second

// depth is the longest chain of services that depend on each other: they stop
// one after another.
func depth(m *manifest.Manifest) int {
	levels, deepest := map[string]int{}, 0
	for _, name := range m.Order() {
		for _, d := range m.Services[name].DependsOn {
			levels[name] = max(levels[name], levels[d])
		}
		levels[name]++
		deepest = max(deepest, levels[name])
	}
	return deepest
}

// credentialsOf returns the external engine's credentials; a file's path is made
// good for processes with other working folders.
func credentialsOf(m *manifest.Manifest) string {
	if c := m.Engine.Credentials; strings.HasSuffix(c, ".creds") {
		return m.Resolve(c)
	}
	return m.Engine.Credentials
}

func loadManifest(file string) (*manifest.Manifest, error) {
	path := file
	if path == "" {
		found, err := manifest.Find(".")
		if errors.Is(err, manifest.ErrNotFound) {
			return nil, &failure{
				code: exitUsage, message: err.Error(),
				hint: "write one such as this, in the project's root:", after: string(manifest.Example()),
			}
		}
		if err != nil {
			return nil, err
		}
		if err := ours(found); err != nil {
			return nil, err
		}
		path = found
	}
	m, err := manifest.Load(path)
	if problems, ok := errors.AsType[manifest.Errors](err); ok {
		return nil, &failure{code: exitUsage, message: filepath.Base(path) + " can't be used", detail: problems.Error()}
	}
	if err != nil {
		return nil, &failure{code: exitUsage, message: err.Error()}
	}
	return m, nil
}

// ours refuses a manifest that another user has put above this folder: what it
// names is run as us.
func ours(path string) error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	if filepath.Dir(path) == here {
		return nil
	}
	info, err := os.Lstat(path) // a link's owner decides where it leads
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() || owner.Uid == 0 {
		return nil
	}
	return &failure{code: exitUsage, message: path + " belongs to another user", hint: "if you trust it: --file " + path}
}

// explain makes a start's or a stop's error what a person can act on.
func explain(err error, m *manifest.Manifest) error {
	if err == nil {
		return nil
	}
	if start := startFailure(err); start != nil {
		return start
	}
	if busy, ok := errors.AsType[*platform.BusyError](err); ok {
		key := map[string]string{"gateway": "gateway.listen", "admin API": "admin.listen"}[busy.Part]
		return portFailure(busy.Part, busy.Addr, key)
	}
	if locked, ok := errors.AsType[*embedded.LockedError](err); ok {
		return &failure{code: exitConflict, message: locked.Error()}
	}
	f := &failure{code: exitFailed, message: err.Error()}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return portFailure("the engine", m.Engine.Listen, "engine.listen")
	case errors.Is(err, console.ErrOpenToOthers):
		f.code, f.hint = exitUsage, "set admin.listen to an address of 127.0.0.1 or [::1]"
	case isA[*gateway.ConfigError](err), isA[*engine.ConfigError](err), isA[*embedded.ConfigError](err):
		f.code, f.hint = exitUsage, "mend "+filepath.Base(m.Path)
	case errors.Is(err, engine.ErrUnreachable), errors.Is(err, engine.ErrNoJetStream):
		f.code, f.hint = exitUnreachable, "start that engine, or take engine.url out of "+filepath.Base(m.Path)+" to run one here"
	case errors.Is(err, engine.ErrCredentials), errors.Is(err, engine.ErrTLS):
		f.code, f.hint = exitAuth, "mend engine.credentials in "+filepath.Base(m.Path)
	case errors.Is(err, lifecycle.ErrForced):
		f.message, f.detail = "stopped by a second signal before everything had drained", indent(strings.Split(err.Error(), "\n"))
	case errors.Is(err, lifecycle.ErrStopTimeout):
		f.hint = "what is named took too long to stop and was cut off"
	}
	return f
}

func isA[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// portFailure says who holds a port, and where another one is chosen.
func portFailure(part, addr, key string) *failure {
	f := &failure{code: exitConflict, message: fmt.Sprintf("%s can't listen on %s: the port is in use", part, addr)}
	if h, ok := ports.Find(addr); ok && h.PID != os.Getpid() {
		f.message += " by " + h.String()
		f.hint = fmt.Sprintf("stop it (kill %d), or set %s in %s", h.PID, key, manifest.Name)
	} else {
		f.hint = fmt.Sprintf("stop what holds it, or set %s in %s", key, manifest.Name)
	}
	return f
}
