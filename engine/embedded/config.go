package embedded

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/keelson-go/keelson/engine"
)

// Config of an embedded engine. The zero value keeps everything in memory and
// listens nowhere.
type Config struct {
	// Dir is where streams and buckets are kept; it is made (0700) if missing.
	// "" keeps them in memory.
	Dir string
	// Listen is the address for clients of other processes, such as
	// 127.0.0.1:4222, or 127.0.0.1:0 for a free port. "" means none.
	Listen string
	// TLS, with a certificate, is demanded of clients that come over Listen.
	TLS *tls.Config
	// AllowPlaintext permits Listen on another address than loopback without
	// TLS: passwords and data then cross the network readable for anybody.
	AllowPlaintext bool
	// Durability is engine.Fast unless set.
	Durability engine.Durability
	// Credentials are the application's "user:password". Default: a random
	// password, made anew by each Start. Children that shall survive a restart
	// of the engine need the same ones again. Beyond loopback a password of at
	// least 16 bytes is demanded.
	Credentials string
	// Name of the server, as its clients see it. Default: "keelson".
	Name string
	// MaxStore and MaxMemory, in bytes, bound what streams and buckets may take
	// on disk and in memory; 0 means the default in the package's comment.
	MaxStore, MaxMemory int64
	// Logger gets the server's warnings and errors, without secrets. nil:
	// nothing is logged.
	Logger *slog.Logger
}

// ConfigError tells which setting is wrong and what to do about it.
type ConfigError struct {
	Field string // the field of [Config]
	Fix   string // what is wrong and what would be right
}

// Error implements error.
func (e *ConfigError) Error() string { return "embedded engine: " + e.Field + ": " + e.Fix }

const (
	minRemotePassword = 16 // bytes
	defaultMaxStore   = 16 << 30
	defaultMaxMemory  = 256 << 20
	memoryMaxMemory   = 1 << 30 // where memory is all there is
)

// settings are a Config checked and taken apart.
type settings struct {
	Config
	host           string // "" means don't listen
	port           int
	user, password string
	system         string // the system user's password
}

func (c Config) check() (*settings, error) {
	s := &settings{Config: c}
	s.Name = cmp.Or(c.Name, "keelson")
	if strings.ContainsAny(s.Name, " \t\r\n") {
		return nil, &ConfigError{"Name", fmt.Sprintf("%q: no spaces, please", s.Name)}
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	durability, err := engine.ParseDurability(string(c.Durability))
	if err != nil {
		return nil, &ConfigError{"Durability", fmt.Sprintf("%q is unknown: use fast or always", c.Durability)}
	}
	s.Durability = durability
	if s.MaxStore < 0 || s.MaxMemory < 0 {
		return nil, &ConfigError{"MaxStore", "and MaxMemory are numbers of bytes, 0 for the default"}
	}
	if s.MaxMemory == 0 {
		s.MaxMemory = defaultMaxMemory
		if s.Dir == "" {
			s.MaxMemory = memoryMaxMemory
		}
	}
	remote, err := s.checkListen()
	if err != nil {
		return nil, err
	}
	return s, s.checkCredentials(remote)
}

// checkListen reports whether others than this machine can reach the address.
func (s *settings) checkListen() (remote bool, err error) {
	if s.Listen == "" {
		return false, nil
	}
	host, port, err := net.SplitHostPort(s.Listen)
	if err != nil {
		return false, &ConfigError{"Listen", fmt.Sprintf("%q: write host:port, such as 127.0.0.1:4222", s.Listen)}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return false, &ConfigError{"Listen", fmt.Sprintf("%q: the port is a number up to 65535, 0 for a free one", s.Listen)}
	}
	switch host {
	case "localhost": // whatever a hosts file says
		host = "127.0.0.1"
	case "":
		host = "0.0.0.0"
	}
	s.host, s.port = host, int(number)
	ip := net.ParseIP(host)
	remote = ip == nil || !ip.IsLoopback()
	if s.TLS != nil && len(s.TLS.Certificates) == 0 && s.TLS.GetCertificate == nil && s.TLS.GetConfigForClient == nil {
		return remote, &ConfigError{"TLS", "has no certificate"}
	}
	if remote && s.TLS == nil && !s.AllowPlaintext {
		return remote, &ConfigError{"Listen", fmt.Sprintf("%s can be reached from other machines: set TLS, or listen on 127.0.0.1, or set AllowPlaintext where the network is trusted", s.Listen)}
	}
	return remote, nil
}

func (s *settings) checkCredentials(remote bool) error {
	s.system = randomPassword()
	if s.Credentials == "" {
		s.user, s.password = appUser, randomPassword()
		return nil
	}
	var ok bool
	s.user, s.password, ok = strings.Cut(s.Credentials, ":")
	switch {
	case !ok || s.user == "" || s.password == "":
		return &ConfigError{"Credentials", "not of the form user:password"}
	case s.user == systemUser:
		return &ConfigError{"Credentials", fmt.Sprintf("the user can't be %q, take another name", systemUser)}
	case strings.HasPrefix(s.password, "$2"):
		return &ConfigError{"Credentials", "the password looks like a bcrypt hash: give the password itself, not beginning with $2"}
	case remote && len(s.password) < minRemotePassword:
		return &ConfigError{"Credentials", fmt.Sprintf("the password can be guessed from other machines: at least %d bytes", minRemotePassword)}
	}
	return nil
}

func randomPassword() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// storeLimit is what the disk can give: asked is taken as it is, else the
// default is cut to three quarters of what is free or ours already.
func storeLimit(dir string, asked int64) (int64, error) {
	if asked > 0 {
		return asked, nil
	}
	free, err := diskFree(dir)
	if err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return max(1, min(defaultMaxStore, (free+diskUsed(dir))/4*3)), nil
}

// isNotDirectory reports whether path is something other than a directory.
func isNotDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}
