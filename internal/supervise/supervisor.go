//go:build unix

package supervise

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// Defaults of a [Config].
const (
	DefaultGrace        = 10 * time.Second
	DefaultStartTimeout = 30 * time.Second
)

// Config says what to supervise. Its callbacks are called outside locks, in
// order for each child and each of its streams, and concurrently otherwise.
type Config struct {
	// Children may be in any order.
	Children []Child
	// Grace is how long a child's group has between SIGTERM and SIGKILL;
	// 0 means [DefaultGrace].
	Grace time.Duration
	// StartTimeout is how long a process may take to become healthy; 0
	// means [DefaultStartTimeout].
	StartTimeout time.Duration
	// OnState is told each change of a child's state. May be nil.
	OnState func(Status)
	// OnLine gets what the children write. A child that writes faster than
	// OnLine returns is held up. May be nil.
	OnLine func(Line)
}

// Child is a process to run.
type Child struct {
	// Name is the service's name; several children may share it.
	Name string
	// Instance is the child's own id, unique in the Config.
	Instance string
	// DependsOn names services all of whose children must have become
	// healthy before this one is started, and that are stopped only after it.
	DependsOn []string
	// Build prepares the first start, such as by compiling. It does not wait
	// for dependencies. It must return when its context ends. May be nil.
	Build func(context.Context) error
	// Command is the program and its arguments, at least one. It is looked
	// up when it is started, so Build can make it.
	Command []string
	// Dir is the process's working folder; empty means this process's.
	Dir string
	// Env is its whole environment, as key=value; nil means this process's.
	Env []string
	// Environ, unless nil, is called right before each start and returns what
	// to use instead of Env.
	Environ func() []string
	// Healthy is asked again and again after a start until it returns nil.
	// It must return when its context ends.
	Healthy func(context.Context) error
}

// Status is what is known about a child.
type Status struct {
	Name, Instance string
	State          State
	// Process is the running or else the last process; zero if there was none.
	Process process.ID
	// StartedAt is when that process was started.
	StartedAt time.Time
	// Restarts counts the starts after the first that were due to a crash; not
	// those that [Supervisor.Restart] asked for.
	Restarts int
	// Exit is how the last process ended; nil if none has.
	Exit *Exit
	// Delay is how long the next start is away, in state [Restarting].
	Delay time.Duration
	// Err is why a start after a crash failed, in state [Restarting]; nil if
	// the process ended by itself, which Exit tells.
	Err error
}

// Stream says where a line was written.
type Stream string

// The streams of a process.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Line is a line a child wrote, without its end: valid UTF-8, and at most
// 64 KiB as written. A longer one comes in pieces.
type Line struct {
	Name, Instance string
	Stream         Stream
	Text           string
}

// Supervisor runs the children of a Config. Its methods may be called
// concurrently.
type Supervisor struct {
	cfg      Config
	children []*child
	open     func() (host, error)

	killed chan struct{} // closed by Kill
	kill   sync.Once
	once   sync.Once // Run

	mu      sync.Mutex
	started *StartError
	overdue []string
	forced  bool
}

// New checks cfg and returns a Supervisor for it. Nothing is started yet.
func New(cfg Config) (*Supervisor, error) {
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = DefaultStartTimeout
	}
	s := &Supervisor{cfg: cfg, open: openSystem, killed: make(chan struct{})}
	byName := make(map[string][]*child)
	instances := make(map[string]bool)
	for i, c := range cfg.Children {
		switch {
		case c.Name == "":
			return nil, fmt.Errorf("supervise: child %d has no name", i)
		case c.Instance == "" || instances[c.Instance]:
			return nil, fmt.Errorf("supervise: %s: instance %q is empty or there twice", c.Name, c.Instance)
		case len(c.Command) == 0 || c.Command[0] == "":
			return nil, fmt.Errorf("supervise: %s: no command", c.Name)
		case c.Healthy == nil:
			return nil, fmt.Errorf("supervise: %s: no Healthy function", c.Name)
		}
		instances[c.Instance] = true
		made := newChild(s, c)
		s.children = append(s.children, made)
		byName[c.Name] = append(byName[c.Name], made)
	}
	for _, c := range s.children {
		for _, name := range c.spec.DependsOn {
			needs, ok := byName[name]
			if !ok {
				return nil, fmt.Errorf("supervise: %s depends on %q, which is no child", c.spec.Name, name)
			}
			c.needs = append(c.needs, needs...)
			for _, n := range needs {
				n.users = append(n.users, c)
			}
		}
	}
	if ring := s.ring(); ring != nil {
		return nil, fmt.Errorf("supervise: children depend on each other in a ring: %s", strings.Join(ring, " → "))
	}
	return s, nil
}

// ring returns the names of children that depend on each other in a ring, or
// nil.
func (s *Supervisor) ring() []string {
	const visiting, visited = 1, 2
	seen := make(map[*child]int)
	var path []string
	var visit func(*child) []string
	visit = func(c *child) []string {
		path = append(path, c.spec.Name)
		defer func() { path = path[:len(path)-1] }()
		switch seen[c] {
		case visiting:
			return slices.Clone(path[slices.Index(path, c.spec.Name):])
		case visited:
			return nil
		}
		seen[c] = visiting
		for _, n := range c.needs {
			if ring := visit(n); ring != nil {
				return ring
			}
		}
		seen[c] = visited
		return nil
	}
	for _, c := range s.children {
		if ring := visit(c); ring != nil {
			return ring
		}
	}
	return nil
}

// Run starts the children and keeps them running until ctx ends or one does
// not start. Then it stops them, each after all that depend on it, and returns
// when the last one has gone. ready, unless nil, is called once all have become
// healthy.
//
// The error is nil after a clean stop, and wraps a [StartError], a
// [StopError], or both. Run can be called once.
func (s *Supervisor) Run(ctx context.Context, ready func()) error {
	err := errors.New("supervise: Run called twice")
	s.once.Do(func() { err = s.run(ctx, ready) })
	return err
}

func (s *Supervisor) run(ctx context.Context, ready func()) error {
	host, err := s.open()
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	defer host.close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range s.children {
		wg.Go(func() {
			if failed := c.run(ctx, host); failed != nil {
				s.mu.Lock()
				if s.started == nil { // the first is the cause of the others
					s.started = failed
				}
				s.mu.Unlock()
				cancel()
			}
			c.finish()
		})
	}
	wg.Go(func() {
		select {
		case <-s.killed:
			cancel()
		case <-ctx.Done():
		}
	})

	if s.awaitHealthy(ctx) && ready != nil {
		ready()
	}
	<-ctx.Done()
	wg.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	var stopped error
	if len(s.overdue) > 0 {
		e := &StopError{Instances: s.overdue, Grace: s.cfg.Grace}
		if s.forced {
			e.Grace = 0
		}
		stopped = e
	}
	if s.started != nil {
		return errors.Join(s.started, stopped)
	}
	return stopped
}

// awaitHealthy reports whether all children became healthy before ctx ended.
func (s *Supervisor) awaitHealthy(ctx context.Context) bool {
	for _, c := range s.children {
		select {
		case <-c.up:
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// Kill ends all processes at once, without a grace period or an order, and
// makes Run return. It does not wait, and calling it again does nothing.
func (s *Supervisor) Kill() {
	s.kill.Do(func() {
		s.mu.Lock()
		s.forced = true
		s.mu.Unlock()
		close(s.killed)
	})
}

// List returns the status of all children, in the order of the Config.
func (s *Supervisor) List() []Status {
	all := make([]Status, len(s.children))
	for i, c := range s.children {
		all[i] = c.snapshot()
	}
	return all
}

// Lines returns the last lines, 20 at most, that the child wrote, the oldest
// first; nil if there is no such instance.
func (s *Supervisor) Lines(instance string) []string {
	for _, c := range s.children {
		if c.spec.Instance == instance {
			return c.lastLines()
		}
	}
	return nil
}

// late notes that a child was not gone when its time was over.
func (s *Supervisor) late(instance string) {
	s.mu.Lock()
	s.overdue = append(s.overdue, instance)
	s.mu.Unlock()
}
