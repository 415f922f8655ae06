package platform

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/workspace"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

// Service is a service that [Main] can run.
type Service struct {
	Name string
	New  service.Constructor
	// Options say where it runs when it runs together with the others, such as
	// service.WithPort; see AddService.
	Options []service.Option
}

// Main is the main() of a program that runs its services either way, and exits:
// it does not return.
//
//	shop [all] [flags]              everything in one process
//	shop SERVICE [--standalone]     one service, which joins a running system: see join.Main
//
// Everything is what cfg says and the services, with the folder .keelson in the
// working directory as `keelson up` has it: a lock, the development key, data, and
// a run file, by which the keelson command and other services find this system. In
// cfg, "" for GatewayListen and AdminListen means 127.0.0.1:3000 and :3100 here;
// the engine listens on a free port of loopback; where there is no
// Gateway.Authenticator, tokens of the development key are taken (`keelson token`
// makes them); and logs go to standard error. The flags are
//
//	--ephemeral            keep no data: engine in memory, databases in a temporary folder
//	--gateway HOST:PORT    where the gateway listens
//	--admin HOST:PORT      where the admin API listens
//	--engine HOST:PORT     where services of other processes reach the engine
//	--port SERVICE=PORT    where a service listens, 0 for a free port; repeat for several
//	--log-level LEVEL      debug, info, warn or error
//	--help
//
// SIGINT, SIGTERM and SIGHUP drain and stop everything in order; a second signal
// cuts that short. Exit codes: 0 stopped cleanly; 1 failed, or stopped by force or
// too late; 2 wrong arguments or configuration; 3 no engine was reached; 4 the
// engine refuses the credentials; 6 a port or the folder is taken.
func Main(cfg Config, services ...Service) {
	args := os.Args[1:]
	if slices.ContainsFunc(args, func(arg string) bool { return find(services, arg) >= 0 }) {
		alone := map[string]join.Constructor{}
		for _, s := range services {
			alone[s.Name] = s.New
		}
		join.Main(alone)
	}
	hangup := context.Background()
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		var ignore context.CancelFunc
		hangup, ignore = signal.NotifyContext(hangup, syscall.SIGHUP)
		defer ignore()
	}
	// Who reads our output may go; the system stays.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, forced, stop := lifecycle.Signals(hangup)
	cfg.Forced = forced
	m := monolith{config: cfg, services: services, program: filepath.Base(os.Args[0]), stdout: os.Stdout, stderr: os.Stderr}
	code := m.run(ctx, args)
	stop()
	os.Exit(code)
}

func find(services []Service, name string) int {
	return slices.IndexFunc(services, func(s Service) bool { return s.Name == name })
}

// monolith is one run of Main with everything in this process.
type monolith struct {
	config         Config
	services       []Service
	program        string
	stdout, stderr io.Writer
	flags          flags
}

// run returns the exit code.
func (m *monolith) run(ctx context.Context, args []string) int {
	began := time.Now()
	err := m.parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(m.stdout, m.usage())
		return join.ExitOK
	}
	if err == nil {
		err = m.serve(ctx, began)
	}
	if err == nil {
		m.say("everything is stopped")
		return join.ExitOK
	}
	return m.explain(err)
}

func (m *monolith) say(format string, args ...any) { fmt.Fprintf(m.stderr, format+"\n", args...) }

func (m *monolith) serve(ctx context.Context, began time.Time) (err error) {
	work, err := workspace.Open(".", m.program, m.flags.ephemeral)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Close()) }()
	ended, err := work.Reap(ctx)
	if ended > 0 {
		m.say("ended %d processes that an earlier run had left behind", ended)
	}
	if err != nil {
		return err
	}
	cfg, err := m.configure(ctx, work)
	if err != nil {
		return err
	}
	devKey := cfg.Gateway.Authenticator == nil
	if devKey {
		key, err := auth.LoadOrCreateDevKey(work.DevKey())
		if err != nil {
			return err
		}
		jwt, err := auth.NewJWT(ctx, key.JWTConfig())
		if err != nil {
			return err
		}
		defer jwt.Close()
		cfg.Gateway.Authenticator = jwt
	}
	p, err := Listen(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	p.Add("run file", func(ctx context.Context, ready func()) error {
		err := work.Note(func(r *runfile.File) {
			r.Gateway, r.Admin = p.GatewayURL(), p.AdminURL()
			r.Engine.URL, r.Engine.Credentials = p.Engine()
			r.Engine.Embedded = cfg.External.URL == ""
		})
		ready()
		if err == nil {
			<-ctx.Done()
		}
		return err
	})
	level := service.WithEnvironment(func(name string) string {
		if name == "KEELSON_LOG_LEVEL" {
			return m.flags.logLevel.String()
		}
		return surroundings(name)
	})
	for _, s := range m.services {
		opts := append([]service.Option{level}, s.Options...)
		if port, given := m.flags.ports[s.Name]; given {
			opts = append(opts, service.WithPort(port))
		}
		p.AddService(s.Name, s.New, opts...)
	}
	var telling sync.WaitGroup
	over := make(chan struct{})
	telling.Go(func() {
		select {
		case <-p.Up():
			m.banner(p, devKey, time.Since(began))
		case <-over:
		}
	})
	told := work.NoteStop(ctx)
	err = p.Run(ctx)
	told()
	close(over)
	telling.Wait()
	return err
}

// configure fills in what the caller has left open.
func (m *monolith) configure(ctx context.Context, work *workspace.Workspace) (Config, error) {
	cfg, flags := m.config, m.flags
	cfg.GatewayListen, cfg.AdminListen, cfg.DataDir = flags.gateway, flags.admin, work.DataDir()
	cfg.NoInProcess = flags.noInProcess
	if m.config.DataDir != "" && !flags.ephemeral {
		cfg.DataDir = m.config.DataDir
	}
	cfg.Version = cmp.Or(cfg.Version, "dev")
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = GatewayGrace + time.Duration(len(m.services))*(service.DefaultStopTimeout+time.Second) + 5*time.Second
	}
	if cfg.Telemetry == nil {
		var err error
		cfg.Telemetry, err = telemetry.New(telemetry.Config{Service: "keelson", Version: cfg.Version, LogLevel: flags.logLevel, Output: m.stderr})
		if err != nil {
			return Config{}, err
		}
	}
	if cfg.External.URL != "" {
		cfg.External.Name = cmp.Or(cfg.External.Name, m.program)
		cfg.External.Logger = cmp.Or(cfg.External.Logger, cfg.Telemetry.Logger())
		return cfg, nil
	}
	addr, credentials := work.EngineListen(ctx, flags.engine)
	cfg.Engine.Listen = addr
	cfg.Engine.Credentials = cmp.Or(cfg.Engine.Credentials, credentials)
	cfg.Engine.Dir = cmp.Or(cfg.Engine.Dir, work.EngineDir())
	if flags.ephemeral {
		cfg.Engine.Dir = ""
	}
	cfg.Engine.Logger = cmp.Or(cfg.Engine.Logger, cfg.Telemetry.Logger())
	return cfg, nil
}

// flags are the arguments of a run of everything.
type flags struct {
	ephemeral, noInProcess bool
	gateway, admin, engine string
	ports                  map[string]int // of services
	logLevel               slog.Level
}
