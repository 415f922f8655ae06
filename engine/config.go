package engine

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// DefaultURL is where [Connect] looks when Config.URL is empty.
const DefaultURL = nats.DefaultURL

const (
	dialTimeout  = 2 * time.Second
	pingEvery    = 5 * time.Second
	pingsOut     = 2 // lost after 10 to 15 s of silence
	drainTimeout = 5 * time.Second
	waitMin      = 50 * time.Millisecond
	waitMax      = 2 * time.Second
)

// Config says how to reach the engine. The zero value is a server on this
// machine at [DefaultURL] without credentials.
type Config struct {
	// URL is nats://host:port, tls://host:port (TLS demanded) or several of
	// them with commas between (one cluster). With nats:// TLS is used when the
	// server asks for it. Credentials don't belong into it: URLs get logged.
	URL string
	// Credentials are "user:password", or the path of a .creds file. A path
	// ends with ".creds".
	Credentials string
	// SystemCredentials, in the same form, are those of a user of the system
	// account. They are optional: with them [Engine.System] is a second
	// connection, by which registry nodes see a killed client at once.
	SystemCredentials string

	CAFile            string // PEM, instead of the machine's authorities; demands TLS
	CertFile, KeyFile string // PEM, this client's certificate; demands TLS

	// Name is shown by the server's own tools. Default: "keelson".
	Name string
	// Replicas is the number of copies of every new bucket and stream, 1 to 5.
	// 0 means 1 on a lone server and 3 in a cluster. In a cluster of fewer
	// servers it has to be set: we don't quietly keep one copy.
	Replicas int
	// Memory keeps new buckets in memory even if the server has a store. They
	// are gone when it stops.
	Memory bool
	// Wait makes [Connect] try until its context ends while the engine is
	// unreachable or its JetStream isn't ready. Refused credentials and failed
	// TLS are told at once all the same.
	Wait bool
	// Logger gets what has nobody to be returned to, such as a violation of
	// permissions told by the server. nil: nothing is logged.
	Logger *slog.Logger
}

// Durability says when an embedded engine calls a write acknowledged.
type Durability string

const (
	// Fast acknowledges once the write is in the page cache, which is synced
	// every two minutes: it survives kill -9, not a power cut.
	Fast Durability = "fast"
	// Always acknowledges after an fsync: it survives a power cut as well.
	Always Durability = "always"
)

// ParseDurability reads "fast" or "always"; "" is Fast. Anything else is a
// *[ConfigError].
func ParseDurability(s string) (Durability, error) {
	switch d := cmp.Or(Durability(s), Fast); d {
	case Fast, Always:
		return d, nil
	}
	return "", &ConfigError{"Durability", fmt.Sprintf("%q is unknown: use fast or always", s)}
}

// normalize fills the defaults and refuses what can't work.
func (c Config) normalize() (Config, error) {
	c.URL = cmp.Or(c.URL, DefaultURL)
	c.Name = cmp.Or(c.Name, "keelson")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for u := range strings.SplitSeq(c.URL, ",") {
		parsed, err := url.Parse(strings.TrimSpace(u))
		switch {
		case err != nil: // its text would repeat the URL, with the secrets in it
			return c, &ConfigError{"URL", "not a URL: write nats://host:4222, or several with commas between"}
		case strings.Contains(u, "@"): // without a scheme too, where there is no parsed.User
			return c, &ConfigError{"URL", "has credentials in it: URLs get logged, put them into Credentials (KEELSON_ENGINE_CREDENTIALS)"}
		case parsed.Host == "" || (parsed.Scheme != "nats" && parsed.Scheme != "tls"):
			return c, &ConfigError{"URL", fmt.Sprintf("%q: write nats://host:4222 or tls://host:4222", u)}
		}
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		return c, &ConfigError{"Replicas", fmt.Sprintf("%d: use 1, 3 or 5, or 0 to have it detected", c.Replicas)}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return c, &ConfigError{"CertFile", "a certificate needs its key: set CertFile and KeyFile together"}
	}
	return c, nil
}

// ConnOptions are the NATS options [Connect] itself uses, with
// cfg.Credentials, for who makes a connection of another kind and then gives
// it to [Wrap]: engine/embedded connects within the process.
func ConnOptions(cfg Config) ([]nats.Option, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.Timeout(dialTimeout),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsOut),
		nats.DrainTimeout(drainTimeout),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectWait),
		nats.IgnoreAuthErrorAbort(), // else two refusals end the connection for good
		nats.ReconnectBufSize(-1),   // fail at once rather than publish late
		nats.ErrorHandler(asyncErrors(cfg.Logger)),
	}
	for _, add := range []func(Config) ([]nats.Option, error){credentials, transport} {
		more, err := add(cfg)
		if err != nil {
			return nil, err
		}
		opts = append(opts, more...)
	}
	return opts, nil
}

func credentials(cfg Config) ([]nats.Option, error) {
	c := cfg.Credentials
	if c == "" {
		return nil, nil
	}
	if strings.HasSuffix(c, ".creds") {
		f, err := os.Open(c)
		if err != nil {
			return nil, &ConfigError{"Credentials", "the .creds file can't be read: " + err.Error()}
		}
		f.Close()
		return []nats.Option{nats.UserCredentials(c)}, nil // read anew at each reconnect
	}
	user, password, ok := strings.Cut(c, ":")
	if !ok || user == "" || password == "" {
		return nil, &ConfigError{"Credentials", "neither user:password nor the path of a .creds file"}
	}
	return []nats.Option{nats.UserInfo(user, password)}, nil
}

func transport(cfg Config) ([]nats.Option, error) {
	if cfg.CAFile == "" && cfg.CertFile == "" {
		return nil, nil // tls:// or the server's wish still lead to verified TLS
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, &ConfigError{"CAFile", err.Error()}
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &ConfigError{"CAFile", cfg.CAFile + " has no PEM certificate in it"}
		}
	}
	if cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, &ConfigError{"CertFile", err.Error()}
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return []nats.Option{nats.Secure(conf)}, nil
}

// reconnectWait is the wait before the attempt-th attempt (from 1): a random
// time around a base that doubles from 50 ms to 2 s, never longer than that.
func reconnectWait(attempt int) time.Duration {
	base := min(waitMin<<min(max(attempt-1, 0), 10), waitMax)
	return base/2 + rand.N(base/2+1)
}

// asyncErrors logs what the connection tells out of turn. The same text is
// logged once a minute at most: a refused reconnect repeats every two seconds.
func asyncErrors(log *slog.Logger) nats.ErrHandler {
	var (
		mu   sync.Mutex
		last string
		when time.Time
	)
	return func(_ *nats.Conn, sub *nats.Subscription, err error) {
		if err == nil {
			return
		}
		text := err.Error()
		mu.Lock()
		repeated := text == last && time.Since(when) < time.Minute
		if !repeated {
			last, when = text, time.Now()
		}
		mu.Unlock()
		if repeated {
			return
		}
		attrs := []any{"error", text}
		if sub != nil {
			attrs = append(attrs, "subject", sub.Subject)
		}
		log.Warn("engine connection", attrs...)
	}
}
