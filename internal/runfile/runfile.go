//go:build unix

package runfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// MaxSize is the most bytes a run file may have. Some 5,000 children fit.
const MaxSize = 1 << 20

// ErrInvalid says that a run file's content is not what [Write] writes.
var ErrInvalid = errors.New("not a valid run file")

// File is the content of a run file. Its own process ID is the one of the
// `keelson up` that wrote it: Alive reports whether that is still running.
type File struct {
	process.ID
	// StartedAt is when that process began, by its own clock.
	StartedAt time.Time `json:"startedAt"`
	// Gateway and Admin are base URLs, as http://127.0.0.1:3000. Either may
	// be empty.
	Gateway string `json:"gateway,omitempty"`
	Admin   string `json:"admin,omitempty"`
	// Engine is where services reach the engine.
	Engine Engine `json:"engine,omitzero"`
	// Stopping says that the process stops; another signal would cut that short.
	Stopping bool `json:"stopping,omitempty"`
	// Children are the service processes.
	Children []Child `json:"children"`
}

// Engine is how to reach the engine. Printing or logging it does not show the
// credentials.
type Engine struct {
	URL string `json:"url,omitempty"`
	// Credentials is user:password, or the path of a NATS .creds file.
	Credentials string `json:"credentials,omitempty"`
	// Embedded says that the engine ran inside that `keelson up`.
	Embedded bool `json:"embedded,omitempty"`
}

// String returns the URL, and whether there are credentials.
func (e Engine) String() string {
	if e.Credentials == "" {
		return e.URL
	}
	return e.URL + " (credentials hidden)"
}

// GoString keeps the credentials out of %#v.
func (e Engine) GoString() string { return "runfile.Engine{" + e.String() + "}" }

// LogValue keeps the credentials out of logs.
func (e Engine) LogValue() slog.Value { return slog.StringValue(e.String()) }

// Child is a process that `keelson up` started. It leads a process group of
// its own. Alive reports whether that very process is still running.
type Child struct {
	// Name is the service's name, Instance its id in the registry.
	Name     string `json:"name"`
	Instance string `json:"instance"`
	process.ID
	// StartedAt is when the process was started, by the clock of `up`.
	StartedAt time.Time `json:"startedAt"`
}

// Decode reads a run file's content from r: one JSON object of at most
// [MaxSize] bytes with no field that is not known. Its errors wrap
// [ErrInvalid] and name the field that is wrong.
func Decode(r io.Reader) (File, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return File{}, err
	}
	if len(b) > MaxSize {
		return File{}, fmt.Errorf("%w: larger than %d bytes", ErrInvalid, MaxSize)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f File
	if err := d.Decode(&f); err != nil {
		return File{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return File{}, fmt.Errorf("%w: something follows the JSON object at byte %d", ErrInvalid, d.InputOffset())
	}
	if err := f.validate(); err != nil {
		return File{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return f, nil
}

func (f *File) validate() error {
	if f.PID < 1 {
		return fmt.Errorf("pid: %d is no process id", f.PID)
	}
	if f.StartedAt.IsZero() {
		return errors.New("startedAt: missing")
	}
	if err := validateURL(f.Gateway, "http", "https"); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if err := validateURL(f.Admin, "http", "https"); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if err := validateURL(f.Engine.URL, "nats", "tls", "ws", "wss"); err != nil {
		return fmt.Errorf("engine.url: %w", err)
	}
	if f.Engine.URL == "" && f.Engine.Credentials != "" {
		return errors.New("engine.credentials: given without engine.url")
	}
	for i, c := range f.Children {
		switch {
		case c.Name == "":
			return fmt.Errorf("children[%d].name: missing", i)
		case c.Instance == "":
			return fmt.Errorf("children[%d].instance: missing", i)
		case c.PID < 2:
			// 1 is init; 0 and less mean groups to kill(2).
			return fmt.Errorf("children[%d].pid: %d is no child's process id", i, c.PID)
		}
	}
	return nil
}

// validateURL takes an empty address, or an absolute one with one of the
// schemes. It never repeats the address, which could hold a password.
func validateURL(s string, schemes ...string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return fmt.Errorf("not an absolute URL; write it as %s://host:port", schemes[0])
	}
	for _, scheme := range schemes {
		if u.Scheme == scheme {
			return nil
		}
	}
	return fmt.Errorf("scheme %q is not one of %q", u.Scheme, schemes)
}
