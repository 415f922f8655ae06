package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The reasons [Connect], [Wrap] and [Engine.Check] fail for, to be told apart
// with errors.Is. Bad settings are a *[ConfigError] instead.
var (
	// ErrUnreachable means that nothing answered at the URL in time.
	ErrUnreachable = errors.New("engine unreachable")
	// ErrCredentials means that the engine refused the credentials, or that
	// they don't allow what was asked.
	ErrCredentials = errors.New("engine refused the credentials")
	// ErrTLS means that no verified TLS connection could be made: an unknown
	// authority, a wrong name, an expired certificate, or a server without TLS
	// where TLS is demanded.
	ErrTLS = errors.New("engine's TLS connection failed")
	// ErrNoJetStream means that the server answers but has no JetStream for
	// this account, or has switched it off, or that its cluster has no leader
	// now.
	ErrNoJetStream = errors.New("engine has no JetStream")
	// ErrDisconnected means that the connection is lost (and being made anew,
	// unless the Engine was closed).
	ErrDisconnected = errors.New("engine disconnected")
)

// ConfigError tells which setting is wrong and what to do about it.
type ConfigError struct {
	Field string // the field of [Config]
	Fix   string // what is wrong and what would be right
}

// Error implements error.
func (e *ConfigError) Error() string { return "engine: " + e.Field + ": " + e.Fix }

// connectError sorts what nats.Connect returned into this package's sentinels.
// detail is the last dial error: nats.go swallows "connection refused".
func connectError(ctx context.Context, urls string, err, detail error) error {
	kind := ErrUnreachable
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case isAuth(err):
		kind = ErrCredentials
	case isTLS(err):
		kind = ErrTLS
	case errors.Is(err, nats.ErrNoServers) && detail != nil:
		err = detail
	}
	return fmt.Errorf("connect to engine at %s: %w: %w", urls, kind, err)
}

func isAuth(err error) bool {
	for _, target := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked,
		nats.ErrAccountAuthExpired, nats.ErrPermissionViolation,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func isTLS(err error) bool {
	if errors.Is(err, nats.ErrTLS) || errors.Is(err, nats.ErrSecureConnWanted) || errors.Is(err, nats.ErrSecureConnRequired) {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// codeUnavailable is the server's "JetStream system temporarily unavailable".
const codeUnavailable jetstream.ErrorCode = 10008

// askError sorts what a request to JetStream failed with. A request that the
// credentials do not allow gets no answer, only a violation on the connection.
func askError(nc *nats.Conn, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("%w: %w", ErrNoJetStream, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded):
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == codeUnavailable {
		return fmt.Errorf("%w: %w", ErrNoJetStream, err)
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
		if last := nc.LastError(); isAuth(last) {
			return fmt.Errorf("%w: %w", ErrCredentials, last)
		}
	}
	return err
}
