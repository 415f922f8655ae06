package console

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/problem"
)

// ScopeAdmin is the scope a token needs wherever one is needed.
const ScopeAdmin = "keelson:admin"

// ErrOpenToOthers is returned by [New] for an address off loopback without an
// authenticator.
var ErrOpenToOthers = errors.New("console: refusing to listen off loopback without authentication")

// livez is the path that needs no token: it tells nothing, and whoever asks it,
// such as a container runtime, has none.
const livez = "/livez"

// Allowed returns [ErrOpenToOthers] for an address off loopback without an
// authenticator, so that it can be told before anything is started.
func Allowed(listen net.Addr, a auth.Authenticator) error {
	if _, local, err := loopback(listen); err != nil {
		return err
	} else if !local && a == nil {
		return fmt.Errorf("%w: %s", ErrOpenToOthers, listen)
	}
	return nil
}

func loopback(listen net.Addr) (host string, local bool, err error) {
	host, _, err = net.SplitHostPort(listen.String())
	if err != nil {
		return "", false, fmt.Errorf("console: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	return host, err == nil && ip.IsLoopback(), nil
}

// allowHost refuses names that are not this machine's, which is how a web page
// reaches a loopback address by DNS rebinding.
func (c *Console) allowHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := strings.ToLower(r.Host)
		if port := strings.LastIndexByte(host, ':'); port > strings.LastIndexByte(host, ']') {
			host = host[:port]
		}
		if c.hosts != nil && !slices.Contains(c.hosts, host) {
			problem.Write(w, r, problem.New(http.StatusForbidden, problem.CodeForbidden,
				"The admin API answers to localhost only; call it by 127.0.0.1, [::1] or localhost."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuseOrigin(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, r, problem.New(http.StatusForbidden, problem.CodeForbidden,
		"A web page of another origin may not change anything here."))
}

func (c *Console) authenticate(next http.Handler) http.Handler {
	if c.config.Authenticator == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == livez {
			next.ServeHTTP(w, r)
			return
		}
		id, err := c.config.Authenticator.Authenticate(r.Context(), auth.FromHeader(r.Header))
		if err == nil {
			err = id.Require(ScopeAdmin)
		}
		switch {
		case err == nil:
			next.ServeHTTP(w, r.WithContext(auth.WithIdentity(r.Context(), id)))
		case errors.Is(err, auth.ErrUnavailable):
			problem.Write(w, r, problem.New(http.StatusServiceUnavailable, problem.CodeUnavailable,
				"Tokens can't be verified now; try again soon."))
		case errors.Is(err, auth.ErrInsufficientScope):
			w.Header().Set("WWW-Authenticate", auth.Challenge(err))
			problem.Write(w, r, problem.New(http.StatusForbidden, problem.CodeForbidden,
				"The token lacks the scope "+ScopeAdmin+"."))
		default:
			w.Header().Set("WWW-Authenticate", auth.Challenge(err))
			problem.Write(w, r, problem.New(http.StatusUnauthorized, problem.CodeUnauthenticated, "A valid token is needed."))
		}
	})
}
