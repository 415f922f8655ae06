package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	defaultTimeout  = 5 * time.Second
	defaultInterval = 30 * time.Second
	maxBody         = 64 << 10 // bytes read of a health endpoint's answer
)

// A Check asks one dependency whether it works; nil means it does. It must
// return soon after ctx ends. It is never run twice at once. A panic in it counts
// as a failure. Its error's text is shown (see the package comment).
type Check func(ctx context.Context) error

// A CheckOption changes one check.
type CheckOption func(*dependency)

// Critical makes the process Unhealthy, not just Degraded, while the check fails.
func Critical() CheckOption { return func(d *dependency) { d.critical = true } }

// Timeout is how long one run of the check may take, 5 s by default.
func Timeout(v time.Duration) CheckOption { return func(d *dependency) { d.timeout = v } }

// Interval is the pause between two runs of the check, 30 s by default, each
// varied by ±10 %. While the check fails it is run sooner: after 250 ms, and then
// after twice the last pause, up to Interval.
func Interval(v time.Duration) CheckOption { return func(d *dependency) { d.interval = v } }

// prober is the client of all HTTP checks: a fresh connection each time, so that
// a check tells whether one can be made and leaves none behind.
var prober = &http.Client{
	Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxBody,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// HTTP is a check that sends GET to an http or https URL; any 2xx answer is a
// pass. It follows no redirect, keeps no connection and reads at most 64 KiB of
// the body. The URL is not repeated in its errors.
func HTTP(rawURL string) Check {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
		if err != nil {
			return fmt.Errorf("make the request: %w", withoutURL(err))
		}
		if (req.URL.Scheme != "http" && req.URL.Scheme != "https") || req.URL.Host == "" {
			return errors.New("the URL is not absolute: give it as http://host:port/path")
		}
		resp, err := prober.Do(req)
		if err != nil {
			return withoutURL(err)
		}
		defer resp.Body.Close()
		// The status is the answer; the body is read so that the server can end it.
		_, _ = io.CopyN(io.Discard, resp.Body, maxBody)
		switch {
		case resp.StatusCode < 200:
			return fmt.Errorf("answered %s", resp.Status)
		case resp.StatusCode < 300:
			return nil
		case resp.StatusCode < 400:
			return fmt.Errorf("answered %s: redirects are not followed, give the final URL", resp.Status)
		}
		return fmt.Errorf("answered %s", resp.Status)
	}
}

// withoutURL takes off the URL net/http and net/url put before an error: it may
// hold a key, and the check's name says enough.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// TCP is a check that opens a TCP connection to "host:port" and closes it.
func TCP(addr string) Check {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// SQL is a check that pings a database; *sql.DB and *sql.Conn fit.
func SQL(db interface {
	PingContext(ctx context.Context) error
}) Check {
	return func(ctx context.Context) error {
		if db == nil {
			return errors.New("there is no database")
		}
		return db.PingContext(ctx)
	}
}
