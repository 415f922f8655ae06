// Package manifest reads keelson.yaml, the one file that names a project's services, its gateway and its engine.
//
// Reading is strict: an unknown key, a wrong type, a bad value or a key that stands twice is refused. All problems of a
// file are found at once, each with its line, column and fix; see [Errors]. What may be meant but looks wrong, such as a
// route to a service that is started by hand, is a warning; see [Manifest.Warnings].
//
// A [Manifest] is only data: nothing here starts, opens or resolves what it names. Its values must not be changed after
// reading; they may be read by several goroutines.
package manifest

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Name is the manifest's file name.
const Name = "keelson.yaml"

// MaxBytes is the size beyond which a manifest is refused.
const MaxBytes = 1 << 20

// ErrNotFound says that there is no manifest in a folder nor in any above it.
var ErrNotFound = errors.New("no " + Name)

//go:embed example.yaml
var example []byte

// Example returns the text of a commented manifest to start from.
func Example() []byte { return slices.Clone(example) }

// Manifest is a whole keelson.yaml with the defaults filled in.
type Manifest struct {
	// Path is the file it was read from: absolute after [Load], the given name after [Parse].
	Path    string
	Version int // 1
	Gateway Gateway
	Admin   Admin
	Engine  Engine
	// Services by name; see [Manifest.Order].
	Services map[string]Service

	order    []string
	warnings []*Error
}

// Gateway is the entrance for requests from outside.
type Gateway struct {
	Listen    string // host:port, default 127.0.0.1:3000
	Auth      Auth
	CORS      CORS
	RateLimit RateLimit // for each client, default 100 in 60 s
	// TrustedProxies are the senders whose X-Forwarded-For and Forwarded are believed.
	TrustedProxies []netip.Prefix
	Routes         []Route
}

// Auth says how the gateway learns who sends a request.
type Auth struct {
	JWT JWT
}

// JWT says whose tokens the gateway accepts. If [JWT.Enabled] is false it is up to the reader, such as `keelson up`
// with its development key.
type JWT struct {
	Keys     []string // files with public keys, relative to the manifest; see [Manifest.Resolve]
	JWKS     string   // address of a key set
	Issuer   string
	Audience string
}

// Enabled reports whether the manifest names keys.
func (j JWT) Enabled() bool { return len(j.Keys) > 0 || j.JWKS != "" }

// CORS are the browser origins that may call, or "*" for all.
type CORS struct {
	Origins []string
}

// By is what a rate limit counts by.
type By string

// What a rate limit counts by.
const (
	ByClient  By = "client"  // the client's address
	BySubject By = "subject" // the token's subject
	ByRoute   By = "route"   // all requests of the route together
)

// RateLimit allows Limit requests in each Window. A Limit of 0 means no limit.
type RateLimit struct {
	Limit  int
	Window time.Duration
	By     By // ByClient unless it is a route's own
}

// Route sends requests to a service, or to several with weights.
type Route struct {
	// Path begins with "/"; "/api/users/*" matches /api/users and everything below it.
	Path string
	// Host is the lower-case host name a request must be for; "" means any.
	Host string
	// Headers a request must have, with exactly these values; names are in canonical form.
	Headers map[string]string
	// Methods that are allowed, never empty.
	Methods []string
	// Service is the one service requests go to; "" if the file names backends instead.
	Service string
	// Backends are where requests go, never empty: one of weight 1 if there is a Service.
	Backends []Backend
	// StripPrefix is taken off the path before it is passed on; "" means nothing is.
	StripPrefix string
	// Scopes a token must have.
	Scopes []string
	// Public says that no token is needed.
	Public bool
	// Timeout of one request; 0 means the gateway's default.
	Timeout time.Duration
	// Priority of the route's requests where a service has too many: Low, Normal or Critical.
	Priority Priority
	// RateLimit is the route's own limit, besides the gateway's; Limit 0 means none.
	RateLimit RateLimit
	// Allow and Deny are client addresses. Deny wins; if there is an Allow, all others are denied.
	Allow, Deny []netip.Prefix
}

// Priority says which requests a service that has too many refuses first.
type Priority string

// Priorities, from the one that is refused first.
const (
	Low      Priority = "low"
	Normal   Priority = "normal"
	Critical Priority = "critical"
)

// Backend is a service and its share of a route's requests: its weight over the sum of all weights.
type Backend struct {
	Service string
	Weight  int // 0–1000
}

// Admin is the API and console for those who run the system.
type Admin struct {
	Listen string // host:port, default 127.0.0.1:3100
}

// Durability is how sure a stored message must be before it is acknowledged.
type Durability string

// Durabilities.
const (
	Fast   Durability = "fast"   // written; a crash of the machine may lose the last moments
	Always Durability = "always" // synced to disk
)

// Engine is the messaging engine: embedded, or an external one if URL is set.
type Engine struct {
	Listen      string // host:port of the embedded one; "" means a loopback port of its choice
	URL         string // address of an external one
	Credentials string // `user:password`, or the path of a .creds file; never to be logged
	Durability  Durability
}

// Service is a process to run: a Go package or any command.
type Service struct {
	Name      string
	Package   string            // Go package relative to the manifest, or ""
	Command   []string          // program and arguments, or nil
	Args      []string          // arguments for the package's program or after the command's
	Port      int               // of the first instance; 0 means a free one
	Instances int               // 1–100
	Env       map[string]string // besides what every child gets
	DependsOn []string
}

// Dir returns the folder of the manifest, which its relative paths start from.
func (m *Manifest) Dir() string { return filepath.Dir(m.Path) }

// Resolve returns the path as it is to be opened: relative ones start from the manifest's folder.
func (m *Manifest) Resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(m.Dir(), path)
}

// Order returns the names of all services so that each comes after those it depends on, and otherwise in the order of
// the file. The reverse is the order to stop in.
func (m *Manifest) Order() []string { return slices.Clone(m.order) }

// Warnings returns what is allowed but probably not meant, in the order of the file.
func (m *Manifest) Warnings() []*Error { return slices.Clone(m.warnings) }

// Find returns the path of the manifest in dir or the nearest folder above it. The error is an [ErrNotFound] if there is
// none.
func Find(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", Name, err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		path := filepath.Join(at, Name)
		switch info, err := os.Stat(path); {
		case err == nil && info.Mode().IsRegular():
			return path, nil
		case err == nil:
			return "", fmt.Errorf("%s is not a regular file", path)
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("find %s: %w", Name, err)
		}
		if other := filepath.Join(at, "keelson.yml"); exists(other) {
			return "", fmt.Errorf("%w in %s, but %s; rename it to %s", ErrNotFound, dir, other, Name)
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%w in %s or any folder above it", ErrNotFound, dir)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Load reads the manifest at path. A file that can be read but not accepted gives [Errors].
func Load(path string) (*Manifest, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	f, err := os.Open(abs)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read manifest: %s is not a regular file", abs)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := Parse(path, b)
	if err != nil {
		return nil, err
	}
	m.Path = abs
	return m, nil
}
