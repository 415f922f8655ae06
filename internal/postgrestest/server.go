package postgrestest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startTimeout = 60 * time.Second // on a machine that is very busy
	stopTimeout  = 20 * time.Second
	pollInterval = 10 * time.Millisecond

	superuser = "postgres"
	owner     = "keelson" // of the databases tests get
)

// Server is a PostgreSQL server of its own folder, socket and password. Its
// methods must not be called concurrently, except URL, CreateDatabase and Exec.
type Server struct {
	bin, dir string
	as       *syscall.Credential
	settings []string // arguments of postgres
	password string

	process *process
	paused  []int  // process ids, the first one of the postmaster
	waker   *waker // while there are any
}

// process is one run of the server.
type process struct {
	pid   int
	ended chan struct{} // closed when it has ended and err is set
	err   error
}

// Option changes what [Start] starts.
type Option func(*Server)

// Setting sets a parameter of the server, like max_connections.
func Setting(name, value string) Option {
	return func(s *Server) { s.settings = append(s.settings, "-c", name+"="+value) }
}

// Durable makes commits reach the disk before they are acknowledged, as in
// production. Tests that do not kill the server are faster without.
func Durable() Option {
	return func(s *Server) {
		for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
			Setting(name, "on")(s)
		}
	}
}

// Start makes a database cluster and starts a server on it, which takes about two
// seconds. The caller must call [Server.Stop]. Errors have the server's log;
// [ErrMissing] is one of them. ctx bounds the start alone.
func Start(ctx context.Context, opts ...Option) (_ *Server, err error) {
	s := &Server{password: rand.Text()}
	for _, setting := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		Setting(setting, "off")(s)
	}
	for _, opt := range opts {
		opt(s) // of settings given twice the last one counts
	}
	if s.bin, err = programs(places); err != nil {
		return nil, err
	}
	if s.as, err = account(); err != nil {
		return nil, err
	}
	if s.dir, err = folder(s.as); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.initialize(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("make a PostgreSQL cluster: %w", err), os.RemoveAll(s.dir))
	}
	if err := s.Restart(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	// No superuser, since limits and rights do not bind one.
	if err := s.Exec(ctx, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", owner, s.password)); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// initialize makes the cluster.
func (s *Server) initialize(ctx context.Context) error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(s.password), 0o600); err != nil {
		return err
	}
	defer os.Remove(password) //nolint:errcheck // It goes with the folder at the latest.
	if s.as != nil {
		if err := os.Chown(password, int(s.as.Uid), int(s.as.Gid)); err != nil {
			return err
		}
	}
	//nolint:gosec // The program is the one that was found, and its arguments are ours.
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "--pgdata", s.cluster(), "--username", superuser,
		"--auth", "scram-sha-256", "--pwfile", password, "--encoding", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.dir, environment(), attributes(s.as, syscall.SIGKILL)
	// No goroutine that ends its thread, as launch does, may run on this one: its
	// end would pass for our death.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, output)
	}
	return nil
}

// environment leaves out what would change the programs' ways, such as PGDATA.
// With a time zone given, initdb does not compare all there are with ours.
func environment() []string { return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"} }

func (s *Server) cluster() string { return filepath.Join(s.dir, "cluster") }
func (s *Server) logFile() string { return filepath.Join(s.dir, "log") }

// log returns the end of the server's log.
func (s *Server) log() []byte {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(b[max(0, len(b)-4<<10):])
}

// URL is the address of the server for a superuser, with the database postgres.
func (s *Server) URL() string { return s.address(superuser, "postgres") }

func (s *Server) address(user, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, s.password), Path: "/" + database,
		RawQuery: url.Values{"host": {s.dir}}.Encode()}
	return u.String()
}

// Exec runs statements as superuser.
func (s *Server) Exec(ctx context.Context, statements string) error {
	return s.connected(ctx, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, statements).ReadAll()
		return err
	})
}

// connected calls f with a superuser's connection.
func (s *Server) connected(ctx context.Context, f func(*pgx.Conn) error) error {
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close(context.WithoutCancel(ctx)))
}

// CreateDatabase makes an empty database and returns its address, for a user who
// owns it and has no rights beyond, and a function that drops it, whoever still
// uses it.
func (s *Server) CreateDatabase(ctx context.Context) (address string, drop func(context.Context) error, err error) {
	name := pgx.Identifier{"test_" + rand.Text()}
	if err := s.Exec(ctx, "CREATE DATABASE "+name.Sanitize()+" OWNER "+owner); err != nil {
		return "", nil, fmt.Errorf("create a database: %w", err)
	}
	drop = func(ctx context.Context) error {
		if err := s.Exec(ctx, "DROP DATABASE "+name.Sanitize()+" WITH (FORCE)"); err != nil {
			return fmt.Errorf("drop database %s: %w", name[0], err)
		}
		return nil
	}
	return s.address(owner, name[0]), drop, nil
}

// Restart stops the server in an orderly way, if it runs, and starts it again on
// the same data and address. It returns when it takes connections.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.end(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := s.launch(ctx)
		if err == nil {
			return nil
		}
		// A killed server leaves processes that go on for a moment.
		if !bytes.Contains(s.log(), []byte("still in use")) || !pause(ctx) {
			return fmt.Errorf("start PostgreSQL: %w; its log:\n%s", err, s.log())
		}
	}
}

// launch starts the server and waits until it takes connections.
func (s *Server) launch(ctx context.Context) error {
	// A new file: what is left of a killed server still writes to the old one.
	if err := os.Remove(s.logFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	args := append([]string{"-D", s.cluster(), "-k", s.dir, "-c", "listen_addresses="}, s.settings...)
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), args...) //nolint:gosec,noctx // As with initdb; it ends with Stop.
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, environment(), out, out
	cmd.SysProcAttr = attributes(s.as, syscall.SIGQUIT)
	p := &process{ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal of our death is sent when this thread ends, which so has to
		// live for as long as the server does.
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	s.process = p
	for {
		err := s.connected(ctx, func(*pgx.Conn) error { return nil })
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			s.process = nil
			return fmt.Errorf("it ended: %w", p.err)
		default:
		}
		if !pause(ctx) {
			return errors.Join(fmt.Errorf("it takes no connections: %w", err), s.Kill())
		}
	}
}

// pause waits a moment, and reports whether ctx goes on.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Stop ends the server, cutting its connections, and removes its folder.
func (s *Server) Stop() error { return errors.Join(s.end(), os.RemoveAll(s.dir)) }

// end ends the server in an orderly way ("fast shutdown"), if it runs.
func (s *Server) end() error {
	if s.process == nil {
		return nil
	}
	if err := s.Resume(); err != nil {
		return err
	}
	if err := syscall.Kill(s.process.pid, syscall.SIGINT); err != nil {
		return fmt.Errorf("stop PostgreSQL: %w", err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.process.ended:
		err := s.process.err
		s.process = nil
		if err != nil {
			return fmt.Errorf("PostgreSQL ended with %w; its log:\n%s", err, s.log())
		}
		return nil
	case <-timer.C:
		err := fmt.Errorf("PostgreSQL did not stop in %v; its log:\n%s", stopTimeout, s.log())
		return errors.Join(err, s.Kill())
	}
}

// Kill ends the server with SIGKILL, as if the machine had run out of memory. The
// data stays for [Server.Restart].
func (s *Server) Kill() error {
	if s.process == nil {
		return errors.New("kill PostgreSQL: it does not run")
	}
	if err := syscall.Kill(s.process.pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-s.process.ended
	s.process = nil
	return s.Resume() // those that live on notice that it has gone
}
