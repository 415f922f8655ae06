package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
)

const (
	defaultRefresh = 15 * time.Minute
	fetchTimeout   = 10 * time.Second // one fetch, redirects and body included
	maxRedirects   = 3
	retryMin       = time.Second
	retryMax       = 30 * time.Second
	// unknownGap is the shortest time between a fetch and the next one that an unknown key may cause.
	unknownGap = 30 * time.Second
	// unknownWait is how long a caller waits for a fetch under way, and maxWaiters how many may at a time.
	unknownWait = 2 * time.Second
	maxWaiters  = 64
)

// remote fetches a key set again and again. Its own goroutine is the only one that does, so there is never more than
// one fetch at a time; callers can only ask for one to be made sooner and wait for its end.
type remote struct {
	url      string
	client   *http.Client
	interval time.Duration
	store    func(context.Context, []jwkset.JWK) error

	wake   chan struct{} // asks the goroutine to fetch now; cap 1
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	flight  chan struct{} // closed when the fetch that is under way or asked for ends; nil without one
	begun   time.Time     // of the last fetch
	err     error         // of the last fetch; errNotFetched before the first has ended
	waiters int
	closed  bool
}

var errNotFetched = errors.New("auth: the key set has not been fetched yet")

func newRemote(cfg JWTConfig, store func(context.Context, []jwkset.JWK) error) (*remote, error) {
	u, err := url.Parse(cfg.JWKS)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("auth: the JWKS address is not an absolute http(s) URL")
	case u.User != nil:
		return nil, errors.New("auth: the JWKS address holds a user or password; remove it, key sets are public")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, fmt.Errorf("auth: the JWKS address is http on %s, so anybody on the way could swap the keys; use https", u.Hostname())
	}
	transport := cfg.Transport
	if transport == nil {
		if d, ok := http.DefaultTransport.(*http.Transport); ok {
			transport = d.Clone()
		} else {
			transport = &http.Transport{Proxy: http.ProxyFromEnvironment}
		}
	}
	interval := cfg.RefreshInterval
	if interval == 0 {
		interval = defaultRefresh
	}
	return &remote{
		url:      u.String(),
		interval: interval,
		store:    store,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		flight:   make(chan struct{}), // the first fetch is on its way from the start
		err:      errNotFetched,
		client: &http.Client{
			Transport: transport,
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				if len(via) > maxRedirects || r.URL.Host != u.Host || r.URL.Scheme != u.Scheme {
					return errRedirect
				}
				return nil
			},
		},
	}, nil
}

var errRedirect = errors.New("redirected to another host, or too often")

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func (r *remote) start(ctx context.Context) {
	ctx, r.cancel = context.WithCancel(ctx)
	go func() {
		defer close(r.done)
		defer r.client.CloseIdleConnections()
		defer r.shut()
		r.run(ctx)
	}()
}

func (r *remote) close() {
	r.cancel()
	<-r.done
}

func (r *remote) run(ctx context.Context) {
	failures := 0
	for {
		r.begin()
		err := r.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		r.end(err)
		wait := r.interval
		if err != nil {
			wait = min(retryMin<<min(failures, 10), retryMax)
			failures++
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait - rand.N(wait/5)) // so that many verifiers do not come at the same moment
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-r.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (r *remote) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = time.Now()
	if r.flight == nil {
		r.flight = make(chan struct{})
	}
	select { // this fetch is the one that was asked for
	case <-r.wake:
	default:
	}
}

func (r *remote) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	close(r.flight)
	r.flight = nil
}

// shut lets the waiters go when no fetch will come any more.
func (r *remote) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.flight != nil {
		close(r.flight)
		r.flight = nil
	}
}

func (r *remote) problem() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// refresh waits for the end of the fetch under way, or asks for one if the last is long enough ago. It reports whether
// a fetch has ended meanwhile, and returns false at once if none is to be had or too many wait already.
func (r *remote) refresh(ctx context.Context) bool {
	r.mu.Lock()
	if r.closed || r.waiters >= maxWaiters || r.flight == nil && time.Since(r.begun) < unknownGap {
		r.mu.Unlock()
		return false
	}
	if r.flight == nil {
		r.flight = make(chan struct{})
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	flight := r.flight
	r.waiters++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.waiters--
		r.mu.Unlock()
	}()

	timer := time.NewTimer(unknownWait)
	defer timer.Stop()
	select {
	case <-flight:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// fetch gets the key set and stores it. Its error names the host, not the whole address.
func (r *remote) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return fmt.Errorf("auth: fetch key set: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	keys, err := r.roundTrip(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return fmt.Errorf("auth: fetch key set from %s: %w", req.URL.Host, err)
	}
	return r.store(ctx, keys)
}

func (r *remote) roundTrip(req *http.Request) ([]jwkset.JWK, error) {
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxKeyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(b) > maxKeyBytes {
		return nil, fmt.Errorf("the answer has more than %d bytes", maxKeyBytes)
	}
	return parseJWKS(b)
}
