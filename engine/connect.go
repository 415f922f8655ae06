package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Connect dials the engine, provisions it and keeps the connection until
// [Engine.Close]. It returns within a few seconds, and when ctx ends; ctx has
// no part in the connection afterwards. With cfg.Wait it tries until then.
//
// The error is a *[ConfigError], or wraps [ErrUnreachable], [ErrCredentials],
// [ErrTLS] or [ErrNoJetStream].
func Connect(ctx context.Context, cfg Config) (*Engine, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		e, err := connect(ctx, cfg)
		if err == nil {
			return e, nil
		}
		if !cfg.Wait || ctx.Err() != nil || !passing(err) {
			return nil, err
		}
		timer := time.NewTimer(reconnectWait(attempt))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w (gave up after %d attempts: %w)", err, attempt, context.Cause(ctx))
		}
	}
}

func connect(ctx context.Context, cfg Config) (*Engine, error) {
	system := cfg
	system.Name, system.Credentials = cfg.Name+" (system)", cfg.SystemCredentials
	if _, err := credentials(system); err != nil {
		if wrong, ok := errors.AsType[*ConfigError](err); ok {
			wrong.Field = "SystemCredentials"
		}
		return nil, err
	}
	nc, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var sys *nats.Conn
	if cfg.SystemCredentials != "" {
		if sys, err = dial(ctx, system); err != nil {
			nc.Close()
			return nil, fmt.Errorf("system account: %w", err)
		}
	}
	if cfg.Credentials != "" && plaintextAbroad(nc) {
		cfg.Logger.Warn("engine connection is not encrypted: use TLS between machines", "engine", nc.ConnectedAddr())
	}
	e, err := Wrap(ctx, nc, sys, cfg)
	if err != nil {
		nc.Close()
		if sys != nil {
			sys.Close()
		}
		return nil, err
	}
	return e, nil
}

// passing reports whether waiting may help: a cluster that is coming up is
// unreachable, then without a leader, then slow or unable to place copies.
func passing(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == codeNoPeers {
		return true
	}
	for _, reason := range []error{ErrUnreachable, ErrNoJetStream, ErrDisconnected, context.DeadlineExceeded, nats.ErrTimeout} {
		if errors.Is(err, reason) {
			return !errors.Is(err, ErrCredentials)
		}
	}
	return false
}

func dial(ctx context.Context, cfg Config) (*nats.Conn, error) {
	opts, err := ConnOptions(cfg)
	if err != nil {
		return nil, err
	}
	d := newDialer(ctx)
	// Names are resolved by the dialer, which knows the context.
	opts = append(opts, nats.SetCustomDialer(d), nats.SkipHostLookup())
	nc, err := nats.Connect(cfg.URL, opts...)
	detail := d.settle()
	if err == nil && ctx.Err() != nil { // the dialer may have closed it under us
		nc.Close()
		err = ctx.Err()
	}
	if err != nil {
		return nil, connectError(ctx, shown(cfg.URL), err, detail)
	}
	return nc, nil
}

// shown is the URL as it may be told: without query and path, of which we
// can't know what they hold.
func shown(urls string) string {
	var out []string
	for u := range strings.SplitSeq(urls, ",") {
		if parsed, err := url.Parse(strings.TrimSpace(u)); err == nil {
			out = append(out, parsed.Scheme+"://"+parsed.Host)
		}
	}
	return strings.Join(out, ",")
}

// plaintextAbroad reports whether the connection leaves this machine in clear.
func plaintextAbroad(nc *nats.Conn) bool {
	if _, err := nc.TLSConnectionState(); err == nil {
		return false
	}
	host, _, err := net.SplitHostPort(nc.ConnectedAddr())
	if err != nil {
		return false // not a network address
	}
	ip := net.ParseIP(host)
	return ip != nil && !ip.IsLoopback()
}
