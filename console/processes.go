package console

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/keelson-go/keelson/problem"
)

var (
	// ErrUnknownService says that no service of this name is run here.
	ErrUnknownService = errors.New("console: no such service is run here")
	// ErrRestarting says that the service is being restarted already.
	ErrRestarting = errors.New("console: the service is being restarted already")
)

// Processes are the services that this system runs by itself. It is safe for
// concurrent use.
type Processes interface {
	// List returns all processes, ordered by service and instance.
	List() []Process
	// Restart restarts the instances of a service one after another, each once
	// the one before is healthy, and returns when all are. When ctx ends it leaves
	// the rest alone. The error is [ErrUnknownService], [ErrRestarting], or says for
	// people why it failed.
	Restart(ctx context.Context, service string) error
	// Logs yields the last tail lines of a service's instances, oldest first, and
	// with follow goes on with new ones until ctx ends. The error is
	// [ErrUnknownService].
	Logs(ctx context.Context, service string, tail int, follow bool) (iter.Seq[LogLine], error)
}

type (
	// Process is one instance that this system runs as a process.
	Process struct {
		Service   string    `json:"service"`
		Instance  string    `json:"instance"`
		State     string    `json:"state"`
		PID       int       `json:"pid,omitempty"` // 0: it is not running
		Port      int       `json:"port,omitempty"`
		StartedAt time.Time `json:"startedAt,omitzero"`
		Restarts  int       `json:"restarts"`           // since the system started
		LastExit  string    `json:"lastExit,omitempty"` // how it ended the last time, for people
	}
	// LogLine is one line that a process wrote.
	LogLine struct {
		Time     time.Time `json:"time"`
		Service  string    `json:"service"`
		Instance string    `json:"instance"`
		Stream   string    `json:"stream"` // "stdout" or "stderr"
		Text     string    `json:"text"`   // without its line end
	}
)

const (
	defaultTail = 100
	maxTail     = 10_000
	maxReason   = 2000 // bytes, of why a restart failed
)

type (
	processesOutput struct {
		Body []Process `nullable:"false"`
	}
	processInput struct {
		Service string `path:"service" doc:"The service's name"`
	}
	// logsInput is read by Resolve, for the reasons filterInput has.
	logsInput struct {
		Service  string `path:"service" doc:"The service's name"`
		Tail     int    `query:"tail" default:"100" minimum:"0" maximum:"10000" doc:"How many of the service's last lines to begin with"`
		Follow   bool   `query:"follow" doc:"Go on with new lines"`
		Instance string `query:"instance" doc:"Only the lines of this instance"`
	}
)

// Resolve implements huma.Resolver.
func (in *logsInput) Resolve(ctx huma.Context) []error {
	q, err := queryOf(ctx)
	if err != nil {
		return []error{err}
	}
	in.Tail, in.Follow, in.Instance = defaultTail, q.Get("follow") == "true", q.Get("instance")
	if q.Has("tail") {
		in.Tail, err = strconv.Atoi(q.Get("tail"))
		if err != nil || in.Tail < 0 || in.Tail > maxTail {
			return []error{badQuery("tail", "It is no number of lines: use 0 to 10000.")}
		}
	}
	if q.Has("follow") && !in.Follow && q.Get("follow") != "false" {
		return []error{badQuery("follow", "It is unknown: use true or false.")}
	}
	return nil
}

func noProcesses() *problem.Problem {
	return problem.New(http.StatusNotFound, problem.CodeNotFound,
		"This system runs no processes: its services were started by somebody else.")
}

func unknownService() *problem.Problem {
	return problem.New(http.StatusNotFound, problem.CodeNotFound, "This system runs no service of this name; GET /v1/processes has those it runs.")
}

func (c *Console) processes(context.Context, *struct{}) (*processesOutput, error) {
	if c.config.Processes == nil {
		return nil, noProcesses()
	}
	out := &processesOutput{Body: c.config.Processes.List()}
	if out.Body == nil {
		out.Body = []Process{}
	}
	return out, nil
}

// patient lifts the server's deadlines from a request that may take long.
func patient(ctx huma.Context, next func(huma.Context)) {
	_, w := humago.Unwrap(ctx)
	out := http.NewResponseController(w)
	// Not every writer has deadlines.
	_ = out.SetReadDeadline(time.Time{})
	_ = out.SetWriteDeadline(time.Time{})
	next(ctx)
}

func (c *Console) restart(ctx context.Context, in *processInput) (*processesOutput, error) {
	if c.config.Processes == nil {
		return nil, noProcesses()
	}
	err := c.config.Processes.Restart(ctx, in.Service)
	switch {
	case err == nil:
		c.note(ctx, "restart", in.Service, "")
		return c.processes(ctx, nil)
	case errors.Is(err, ErrUnknownService):
		return nil, unknownService()
	case errors.Is(err, ErrRestarting):
		return nil, problem.New(http.StatusConflict, problem.CodeConflict, "The service is being restarted already.")
	}
	c.note(ctx, "restart", in.Service, "") // some of it was done, maybe
	c.failed(ctx, err)
	why := err.Error()
	return nil, problem.New(http.StatusBadGateway, problem.CodeUpstreamFailed,
		"The restart failed: "+strings.ToValidUTF8(why[:min(len(why), maxReason)], "?"))
}

// logs streams lines as they come. A stream that is followed ends with its
// reader, or with the token it was opened with.
func (c *Console) logs(ctx context.Context, in *logsInput) (*huma.StreamResponse, error) {
	if c.config.Processes == nil {
		return nil, noProcesses()
	}
	ctx, cancel := untilExpired(ctx)
	lines, err := c.config.Processes.Logs(ctx, in.Service, in.Tail, in.Follow)
	if err != nil {
		cancel()
		if errors.Is(err, ErrUnknownService) {
			return nil, unknownService()
		}
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer cancel()
		r, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("X-Accel-Buffering", "no")
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead || send(w, nil) != nil {
			return
		}
		for line := range lines {
			if in.Instance != "" && line.Instance != in.Instance {
				continue
			}
			text, err := json.Marshal(line)
			if err != nil {
				c.failed(ctx, err)
				return
			}
			if send(w, append(text, '\n')) != nil || ctx.Err() != nil {
				return
			}
		}
	}}, nil
}
