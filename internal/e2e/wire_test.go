//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// response is an answer that was read to its end.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request to the gateway with the header's fields; names and
// values alternate.
func (p *project) send(method, path, body string, header ...string) (response, error) {
	req, err := http.NewRequest(method, "http://"+p.gateway+path, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	if body != "" && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return p.roundTrip(req)
}

func (p *project) roundTrip(req *http.Request) (response, error) {
	resp, err := p.client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return response{}, fmt.Errorf("%w: %w", errTruncated, err)
	}
	return response{resp.StatusCode, resp.Header, string(b)}, nil
}

var errTruncated = errors.New("the answer broke off")

// call sends a request with a token and must get an answer.
func (p *project) call(method, path, body string, header ...string) response {
	p.t.Helper()
	r, err := p.send(method, path, body, append(header, p.bearer()...)...)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

func (p *project) bearer() []string {
	p.t.Helper()
	if p.token == "" {
		r := p.keelson("token", "--ttl", "3h")
		if r.code != 0 || r.stderr != "" {
			p.t.Fatalf("keelson token: %s", r)
		}
		p.token = strings.TrimSuffix(r.stdout, "\n")
	}
	return []string{"Authorization", "Bearer " + p.token}
}

// problem reads the answer as problem details.
func (r response) problem() (problem.Problem, error) {
	var found problem.Problem
	if ct := r.header.Get("Content-Type"); ct != problem.ContentType {
		return found, fmt.Errorf("Content-Type %q", ct)
	}
	err := json.Unmarshal([]byte(r.body), &found)
	return found, err
}

// user is a user of the shop.
type user struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// create makes a user; an error means that it was not acknowledged.
func (p *project) create(email string) (user, error) {
	r, err := p.send("POST", "/api/users", fmt.Sprintf(`{"name":"Ann","email":%q}`, email), "Authorization", "Bearer "+p.token)
	if err != nil {
		return user{}, err
	}
	var u user
	if r.status != http.StatusCreated {
		return u, fmt.Errorf("%d: %s", r.status, r.body)
	}
	return u, json.Unmarshal([]byte(r.body), &u)
}

// makeUser makes a user who must be acknowledged.
func (p *project) makeUser(email string) user {
	p.t.Helper()
	p.bearer()
	u, err := p.create(email)
	if err != nil {
		p.t.Fatal(err)
	}
	return u
}

// users reads all users, page by page.
func (p *project) users() map[string]user {
	p.t.Helper()
	all := map[string]user{}
	for after := ""; ; {
		path := "/api/users?limit=200"
		if after != "" {
			path += "&after=" + after
		}
		r := p.call("GET", path, "")
		var page []user
		if err := json.Unmarshal([]byte(r.body), &page); err != nil || r.status != 200 {
			p.t.Fatalf("GET %s: %d %s (%v)", path, r.status, r.body, err)
		}
		for _, u := range page {
			all[u.ID] = u
			after = u.ID
		}
		if len(page) < 200 {
			return all
		}
	}
}

// instances asks the admin API for a service's instances.
func (p *project) instances(service string) ([]registry.Instance, error) {
	req, err := http.NewRequest("GET", "http://"+p.admin+"/v1/services/"+service, nil)
	if err != nil {
		return nil, err
	}
	r, err := p.roundTrip(req)
	if err != nil {
		return nil, err
	}
	if r.status != 200 {
		return nil, fmt.Errorf("%d: %s", r.status, r.body)
	}
	var all []registry.Instance
	err = json.Unmarshal([]byte(r.body), &all)
	return all, err
}

// serving waits until exactly n instances of a service are registered, all of
// them in rotation.
func (p *project) serving(service string, n int) {
	p.t.Helper()
	p.await(fmt.Sprintf("%d instances of %s", n, service), patience, func() error {
		all, err := p.instances(service)
		if err != nil {
			return err
		}
		serving := 0
		for _, in := range all {
			if in.Status.Serving() {
				serving++
			}
		}
		if serving != n || len(all) != n {
			return fmt.Errorf("%d of %d are in rotation", serving, len(all))
		}
		return nil
	})
}

// load sends requests in a loop, some at a time, until it is stopped.
type load struct {
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	ok      atomic.Int64
	refused atomic.Int64 // nobody listened
	mu      sync.Mutex
	failed  misses
	slowest time.Duration
}

// miss is a request that got no right answer.
type miss struct {
	err  error
	at   time.Time
	took time.Duration
}

func (m miss) String() string {
	return fmt.Sprintf("%s after %v: %v", m.at.Format("15:04:05.000"), m.took.Round(time.Millisecond), m.err)
}

type misses []miss

// String tells the first few.
func (all misses) String() string {
	var b strings.Builder
	for _, m := range all[:min(len(all), 10)] {
		fmt.Fprintf(&b, "\n%s", m)
	}
	return b.String()
}

// pace is the pause between two requests of one worker: the machine has more to
// do than this load.
const pace = 8 * time.Millisecond

func startLoad(workers int, shot func() error) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for range workers {
		l.wg.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				err := shot()
				l.count(err, time.Since(began))
				select {
				case <-time.After(pace):
				case <-ctx.Done():
				}
			}
		})
	}
	return l
}

func (l *load) count(err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, took)
	switch {
	case err == nil:
		l.ok.Add(1)
	case errors.Is(err, syscall.ECONNREFUSED):
		l.refused.Add(1)
	default:
		l.failed = append(l.failed, miss{err, time.Now(), took})
	}
}

// stop ends the load and returns what failed, refused connections aside.
func (l *load) stop() misses {
	l.cancel()
	l.wg.Wait()
	return l.failed
}

// flawless stops the load, all of whose requests must have been answered.
func (l *load) flawless(p *project, what string) {
	p.t.Helper()
	failed := l.stop()
	p.t.Logf("%s: %d answered, %d failed, %d refused, slowest %v", what, l.ok.Load(), len(failed), l.refused.Load(), l.slowest.Round(time.Millisecond))
	if len(failed) > 0 || l.refused.Load() > 0 {
		p.t.Errorf("%s: %d requests failed and %d were refused, of %d:%s", what, len(failed), l.refused.Load(),
			l.ok.Load()+int64(len(failed)), failed)
	}
	if l.ok.Load() == 0 {
		p.t.Errorf("%s: no request was answered", what)
	}
}

// more waits until n more requests were answered: what happened has been felt.
func (l *load) more(p *project, n int64) {
	p.t.Helper()
	target := l.ok.Load() + n
	p.await(fmt.Sprintf("%d more answers", n), patience, func() error {
		if got := l.ok.Load(); got < target {
			return fmt.Errorf("%d of %d", got, target)
		}
		return nil
	})
}

// reading gets pages of users.
func (p *project) reading() error {
	r, err := p.send("GET", "/api/users?limit=3", "", "Authorization", "Bearer "+p.token)
	if err != nil {
		return err
	}
	if r.status != 200 || !json.Valid([]byte(r.body)) {
		return fmt.Errorf("%d: %s (header %v)", r.status, r.body, r.header)
	}
	return nil
}

// writing creates users and notes those that were acknowledged.
func (p *project) writing(acknowledged *sync.Map, seen *atomic.Int64) func() error {
	return func() error {
		u, err := p.create("u" + strconv.FormatInt(seen.Add(1), 10) + "@example.org")
		if err == nil {
			acknowledged.Store(u.ID, u.Email)
		}
		return err
	}
}

// lost returns how many acknowledged users there are, and fails if one is not in
// the list any more.
func (p *project) keeps(acknowledged *sync.Map) int {
	p.t.Helper()
	all := p.users()
	n := 0
	acknowledged.Range(func(id, email any) bool {
		n++
		if u, ok := all[id.(string)]; !ok || u.Email != email {
			p.t.Errorf("user %v (%v) was acknowledged and is lost", id, email)
		}
		return true
	})
	return n
}

func trimLines(s string) []string {
	return strings.Split(string(bytes.TrimSpace([]byte(s))), "\n")
}
