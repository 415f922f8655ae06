// Package join is the main() of a service that runs as a process of its own: it
// finds the engine, joins it, serves, and leaves in order.
//
//	func main() {
//		join.Main(map[string]join.Constructor{"user-service": users.New})
//	}
//
// The service itself knows nothing of this: the same [Constructor] runs in a
// test, or together with others in one process.
//
// # Finding the engine
//
// KEELSON_ENGINE_URL, with KEELSON_ENGINE_CREDENTIALS, names it; Main waits up to
// 20 s for it, since services may be started before the engine. Otherwise the
// run file of a running `keelson up` or platform.Main, in this folder or the
// nearest above that has one, does. With neither, Main says how to get one and
// exits with 3, unless --standalone was given: the service then serves
// unregistered, and /health says so.
package join

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/service"
)

// Exit codes of [Main].
const (
	ExitOK          = 0 // drained cleanly
	ExitFailed      = 1 // failed, or the stop took too long or was forced
	ExitUsage       = 2 // wrong arguments
	ExitUnreachable = 3 // no engine was found or reached
)

// connectTimeout is how long a service waits for an engine it was told of: it
// may be started before the engine is. Only tests change it.
var connectTimeout = 20 * time.Second

// checkInterval is how often /health asks for the engine.
const checkInterval = 5 * time.Second

// ErrNoEngine says that nothing tells where the engine is.
var ErrNoEngine = errors.New("no engine found")

// ErrStandalone is what /health shows of a service that was started with
// --standalone.
var ErrStandalone = errors.New("standalone: not registered, no engine")

// Constructor makes a service; see [service.Constructor].
type Constructor = service.Constructor

// Main runs the service named by the first argument (or the only one there is)
// until SIGINT or SIGTERM, and exits: it does not return.
func Main(services map[string]Constructor) {
	ctx, forced, stop := lifecycle.Signals(context.Background())
	code := run(ctx, forced, services, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, forced <-chan struct{}, services map[string]Constructor, args []string, stdout, stderr io.Writer) int {
	name, standalone, err := parse(args, slices.Sorted(maps.Keys(services)), stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return ExitOK
	case err != nil:
		fmt.Fprintf(stderr, "%v\n", err)
		return ExitUsage
	}
	err = serve(ctx, name, services[name], standalone, service.WithForce(forced))
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	switch {
	case errors.Is(err, ErrNoEngine):
		fmt.Fprint(stderr, "\nStart one with `keelson up` in this folder, set KEELSON_ENGINE_URL to one that runs,\n"+
			"or serve without an engine, unregistered: --standalone\n")
		return ExitUnreachable
	case errors.Is(err, errNotReached):
		fmt.Fprint(stderr, "\nCheck that the engine runs and that KEELSON_ENGINE_URL and KEELSON_ENGINE_CREDENTIALS are its own,\n"+
			"or serve without an engine, unregistered: --standalone\n")
		return ExitUnreachable
	}
	return ExitFailed
}

// errNotReached: there should be an engine, but it can't be used.
var errNotReached = errors.New("join the engine")

// parse reads the command line; flags may stand before and after the name.
func parse(args []string, known []string, stdout io.Writer) (name string, standalone bool, err error) {
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVar(&standalone, "standalone", false, "serve without an engine, unregistered")
	usage := fmt.Sprintf("usage: %s SERVICE [--standalone]\n\nservices: %s\n\n"+
		"  --standalone   serve without an engine, unregistered\n\n"+
		"The engine is KEELSON_ENGINE_URL, else that of a running `keelson up` in this folder or above.\n",
		filepath.Base(args[0]), strings.Join(known, ", "))
	var names []string
	for rest := args[1:]; ; {
		if err := flags.Parse(rest); errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			return "", false, err
		} else if err != nil {
			return "", false, fmt.Errorf("%w\n%s", err, usage)
		}
		if flags.NArg() == 0 {
			break
		}
		names = append(names, flags.Arg(0))
		rest = flags.Args()[1:]
	}
	switch {
	case len(names) == 0 && len(known) == 1:
		return known[0], standalone, nil
	case len(names) != 1:
		return "", false, fmt.Errorf("name one service\n%s", usage)
	case !slices.Contains(known, names[0]):
		return "", false, fmt.Errorf("there is no service %q here\n%s", names[0], usage)
	}
	return names[0], standalone, nil
}

func serve(ctx context.Context, name string, construct Constructor, standalone bool, opts ...service.Option) error {
	opts = append(opts, service.FromEnvironment())
	if standalone {
		s, err := construct(ctx, opts...)
		if err != nil {
			return err
		}
		s.Health().Set("registry", ErrStandalone, false)
		return s.Run(ctx)
	}
	cfg, err := locate(".", os.Getenv)
	if err != nil {
		return err
	}
	cfg.Name = name
	return Serve(ctx, cfg, construct, opts...)
}

// Serve connects to the engine, runs the service over it until ctx ends, and
// disconnects. Its errors before the service runs wrap those of package engine,
// which tell what is wrong with cfg; ctx ending meanwhile is no error.
func Serve(ctx context.Context, cfg engine.Config, construct Constructor, opts ...service.Option) error {
	dial, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	failed := func(err error) error {
		if ctx.Err() != nil {
			err = nil // told to stop while no service runs: it has
		} else {
			err = fmt.Errorf("%w: %w", errNotReached, err)
		}
		return err
	}
	eng, err := engine.Connect(dial, cfg)
	if wrong, ok := errors.AsType[*engine.ConfigError](err); ok {
		return fmt.Errorf("join the engine: %w", wrong)
	}
	if err != nil {
		return failed(err)
	}
	defer eng.Close()
	driver, err := eng.RegistryDriver(dial, cfg.Logger)
	if err != nil {
		return failed(err)
	}
	// It ends after the service, which leaves through it.
	reg := registry.Open(context.WithoutCancel(ctx), driver)
	defer reg.Close()
	if err := reg.WaitSynced(dial); err != nil { // so that its first call finds the others
		return failed(err)
	}
	cancel()
	s, err := construct(ctx, append(slices.Clone(opts), service.WithRegistry(reg))...)
	if err != nil {
		return err
	}
	err = s.Health().Add("engine", eng.Check, health.Interval(checkInterval))
	if err != nil && !errors.Is(err, health.ErrDuplicate) { // its own check of that name will do
		return err
	}
	return s.Run(ctx)
}

// locate finds the engine; see the package documentation.
func locate(dir string, getenv func(string) string) (engine.Config, error) {
	if url := getenv("KEELSON_ENGINE_URL"); url != "" {
		return engine.Config{URL: url, Credentials: getenv("KEELSON_ENGINE_CREDENTIALS"), Wait: true}, nil
	}
	path, err := runfile.Find(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return engine.Config{}, fmt.Errorf("%w: KEELSON_ENGINE_URL is not set, and no `keelson up` runs in this folder or above", ErrNoEngine)
	}
	if err != nil {
		return engine.Config{}, err
	}
	f, err := runfile.Read(path)
	if err != nil {
		return engine.Config{}, err
	}
	if !f.Alive() || f.Engine.URL == "" {
		return engine.Config{}, fmt.Errorf("%w: KEELSON_ENGINE_URL is not set, and the `keelson up` of %s has ended", ErrNoEngine, path)
	}
	return engine.Config{URL: f.Engine.URL, Credentials: f.Engine.Credentials}, nil
}
