package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/keelson-go/keelson/engine"
)

const (
	appAccount    = "KEELSON" // also a directory's name: never change it
	systemAccount = "SYS"
	appUser       = "keelson"
	systemUser    = "keelson-system"

	// A client that vanished without a word (its machine lost power) is given
	// up after 40 to 60 s. Leases are faster; this frees the connection.
	clientPing = 20 * time.Second
)

// CorruptError means that streams in the directory can't be read. They
// were left as they are.
type CorruptError struct {
	Dir     string
	Streams []string // the directories of the streams, below Dir
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("engine directory %s is damaged: unreadable %s; restore it from a backup, or move that away to start without what it holds",
		e.Dir, strings.Join(e.Streams, ", "))
}

// Server is an engine that runs in this process. Its methods may be called by
// several goroutines at once.
type Server struct {
	set  *settings
	ns   *server.Server
	log  *serverLog
	lock *os.File // nil in memory
	temp string   // the server's directory during a start without Dir
	url  string

	stop sync.Once
	done chan struct{}
	err  error // of the shutdown, to be read after done
}

// Start runs an engine until [Server.Stop]; ctx bounds the start only, and
// is looked at between its steps (reading a large directory is one step).
// Nothing can connect before all streams have been read. The error is a
// *[ConfigError], *[LockedError] or *[CorruptError], or wraps the system's
// (syscall.EADDRINUSE for a busy port, for instance).
func Start(ctx context.Context, cfg Config) (*Server, error) {
	set, err := cfg.check()
	if err != nil {
		return nil, err
	}
	s := &Server{set: set, log: newServerLog(set), done: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		s.shutdown()
		return nil, errors.Join(err, s.err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if s.set.host != "" {
		// The server tells a busy port by text only: ask first, for the errno.
		if err := probePort(ctx, net.JoinHostPort(s.set.host, fmt.Sprint(s.set.port))); err != nil {
			return fmt.Errorf("engine can't listen on %s: %w", s.set.Listen, err)
		}
	}
	dir, expected, err := s.openStore()
	if err != nil {
		return err
	}
	maxStore, err := storeLimit(dir, s.set.MaxStore)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start engine: %w", context.Cause(ctx))
	}
	s.ns, err = server.NewServer(s.options(dir, maxStore))
	if err != nil {
		return fmt.Errorf("start engine: %w", err)
	}
	before := blocks(dir, expected)
	s.ns.SetLoggerV2(s.log, false, false, false)
	s.ns.Start()
	if text := s.log.failure(); text != "" {
		return fmt.Errorf("start engine: %s", text)
	}
	// Not the Account given in the options: the server made its own of it.
	app, err := s.ns.LookupAccount(appAccount)
	if err != nil {
		return fmt.Errorf("start engine: look up its account: %w", err)
	}
	if err := app.EnableJetStream(s.limits(), nil); err != nil {
		return fmt.Errorf("start engine: read %s: %w", dir, err)
	}
	if err := s.verify(expected); err != nil {
		return err
	}
	for stream, bytes := range cutOff(before) {
		s.set.Logger.Error("engine cut off what it could not read at the end of a stream's file", "stream", stream, "bytes", bytes)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("start engine: %w", context.Cause(ctx))
	}
	if s.temp != "" {
		// It is only looked at by a starting server. Gone now, it can't be left
		// behind by a kill.
		if err := os.RemoveAll(s.temp); err != nil {
			return fmt.Errorf("start engine: %w", err)
		}
		s.temp = ""
	}
	return s.listen()
}

// openStore gives the directory to use and the streams it should bring back.
func (s *Server) openStore() (dir string, expected []string, err error) {
	if s.set.Dir == "" {
		// The server insists on a directory, though nothing is written there:
		// the account's limits permit no stream on disk.
		s.temp, err = os.MkdirTemp("", "keelson-engine-")
		return s.temp, nil, err
	}
	if s.lock, err = openDir(s.set.Dir); err != nil {
		return "", nil, err
	}
	expected, err = recoverDir(s.set.Dir)
	return s.set.Dir, expected, err
}

func (s *Server) options(dir string, maxStore int64) *server.Options {
	app, system := server.NewAccount(appAccount), server.NewAccount(systemAccount)
	noSystem := &server.SubjectPermission{Deny: []string{"$SYS.>"}}
	opts := &server.Options{
		ServerName:    s.set.Name,
		Host:          s.set.host,
		Port:          s.set.port,
		DontListen:    true, // until all is read: see listen
		NoSigs:        true, // else its SIGINT handler ends the process mid-drain
		Accounts:      []*server.Account{app, system},
		SystemAccount: systemAccount,
		Users: []*server.User{{
			Username: s.set.user, Password: s.set.password, Account: app,
			Permissions: &server.Permissions{Publish: noSystem, Subscribe: noSystem},
		}, {
			Username: systemUser, Password: s.set.system, Account: system,
			AllowedConnectionTypes: map[string]struct{}{"IN_PROCESS": {}},
		}},
		TLSConfig:    s.set.TLS,
		PingInterval: clientPing,

		JetStream:              true,
		StoreDir:               dir,
		JetStreamMaxStore:      maxStore,
		JetStreamMaxMemory:     s.set.MaxMemory,
		SyncAlways:             s.set.Durability == engine.Always,
		DisableJetStreamBanner: true,
		MaxClosedClients:       100, // remembered for a monitoring port we don't have
	}
	if s.set.port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return opts
}

// limits of the application's account: the server's own are enough (-1), but
// without Dir nothing may be kept on disk. engine.Wrap learns from it that new
// streams belong into memory.
func (s *Server) limits() map[string]server.JetStreamAccountLimits {
	l := server.JetStreamAccountLimits{
		MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1,
		MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1,
	}
	if s.set.Dir == "" {
		l.MaxStore = 0
	}
	return map[string]server.JetStreamAccountLimits{"": l}
}

// verify compares what the server brought back with what lies on disk, for it
// only warns of a stream it can't read. Messages it had to give up are told.
func (s *Server) verify(expected []string) error {
	if len(expected) == 0 {
		return nil
	}
	info, err := s.ns.Jsz(&server.JSzOptions{Account: appAccount, Streams: true})
	if err != nil {
		return fmt.Errorf("start engine: list its streams: %w", err)
	}
	var found []string
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			found = append(found, stream.Name)
			if lost := stream.State.Lost; lost != nil && len(lost.Msgs) > 0 {
				s.set.Logger.Error("engine lost messages to damaged files",
					"stream", stream.Name, "messages", len(lost.Msgs), "bytes", lost.Bytes)
			}
		}
	}
	corrupt := &CorruptError{Dir: s.set.Dir}
	for _, name := range expected {
		if !slices.Contains(found, name) {
			path, _ := filepath.Rel(s.set.Dir, filepath.Join(streamsDir(s.set.Dir), name))
			corrupt.Streams = append(corrupt.Streams, path)
		}
	}
	if len(corrupt.Streams) > 0 {
		return corrupt
	}
	return nil
}

// listen opens the port now that all is there, so that no client finds the
// engine half awake.
func (s *Server) listen() error {
	if s.set.host == "" {
		return nil
	}
	ready := make(chan struct{})
	s.ns.AcceptLoop(ready)
	<-ready
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if text := s.log.failure(); text != "" || !ok || addr == nil {
		return fmt.Errorf("engine can't listen on %s: %s", s.set.Listen, text)
	}
	scheme := "nats"
	if s.set.TLS != nil {
		scheme = "tls"
	}
	s.url = scheme + "://" + net.JoinHostPort(s.set.host, fmt.Sprint(addr.Port))
	return nil
}

func probePort(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// URL is where other processes reach the engine, nats://host:port or, with
// TLS, tls://host:port. It is "" if the engine doesn't listen.
func (s *Server) URL() string { return s.url }

// Credentials are the application's "user:password", for child processes. They
// are a secret: hand them over by environment or a file of mode 0600, never by
// arguments or logs.
func (s *Server) Credentials() string { return s.set.user + ":" + s.set.password }

// Connect gives an engine on connections within this process, in the
// application and the system account, provisioned. name is shown by the
// server's tools. Close it before Stop: without a server it tries for ever.
func (s *Server) Connect(ctx context.Context, name string) (*engine.Engine, error) {
	app, err := s.dial(name, s.Credentials())
	if err != nil {
		return nil, err
	}
	system, err := s.dial(name+" (system)", systemUser+":"+s.set.system)
	if err != nil {
		app.Close()
		return nil, err
	}
	e, err := engine.Wrap(ctx, app, system, engine.Config{Name: name, Logger: s.set.Logger})
	if err != nil {
		app.Close()
		system.Close()
		return nil, err
	}
	return e, nil
}

func (s *Server) dial(name, credentials string) (*nats.Conn, error) {
	opts, err := engine.ConnOptions(engine.Config{Name: name, Credentials: credentials, Logger: s.set.Logger})
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(s.ns))...)
	if err != nil {
		return nil, fmt.Errorf("connect to embedded engine: %w: %w", engine.ErrUnreachable, err)
	}
	return nc, nil
}

// ErrStopTimeout means that Stop's context ended before the engine had stopped.
var ErrStopTimeout = errors.New("embedded engine still stopping")

// Stop closes all connections, writes what is to be written, frees the
// directory and waits for all of it. If ctx ends first it returns
// [ErrStopTimeout] while the stop goes on; call Stop again to wait on. Every
// call after the first one only waits.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() { go s.shutdown() })
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrStopTimeout, context.Cause(ctx))
	}
}

// shutdown undoes start, however far that came.
func (s *Server) shutdown() {
	defer close(s.done)
	if s.ns != nil {
		s.ns.Shutdown()
		s.ns.WaitForShutdown()
	}
	if s.temp != "" { // start came not so far
		s.err = os.RemoveAll(s.temp)
	}
	if s.lock != nil {
		s.err = errors.Join(s.err, s.lock.Close()) // frees the lock; the file stays, removing it would race
	}
}
