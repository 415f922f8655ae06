package service_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	keelson "github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/lifecycle"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
)

// Under load through the client, one of two instances stops: no request fails,
// of any method.
func TestStopUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	r, _ := fleet(t, hub)
	var answered [2]atomic.Int64
	var fleetOf [2]*process
	for i := range fleetOf {
		s, _ := newService(t, "users", service.WithRegistry(r), service.WithInstance(fmt.Sprint("users-", i)), service.WithDrainDelay(150*time.Millisecond))
		s.HandleFunc("/work", func(w http.ResponseWriter, req *http.Request) error {
			answered[i].Add(1)
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return err
			}
			select { // some take a while, so that some are in flight at any time
			case <-time.After(time.Duration(answered[i].Load()%10) * time.Millisecond):
			case <-req.Context().Done():
				return req.Context().Err()
			}
			_, err := io.WriteString(w, "done")
			return err
		})
		fleetOf[i] = start(t, s)
	}
	callers, _ := fleet(t, hub)
	eventually(t, "both are in rotation", func() bool { return callers.Endpoints("users").Len() == 2 })
	transport, err := keelson.New(callers)
	if err != nil {
		t.Fatal(err)
	}
	defer transport.CloseIdleConnections()

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var calls atomic.Int64
	for n := range 16 {
		method := []string{http.MethodGet, http.MethodPost}[n%2]
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A body of unknown length can't be sent twice: nothing is hidden by a retry.
				req, err := http.NewRequestWithContext(context.Background(), method, "http://users/work", io.MultiReader(strings.NewReader("body")))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := transport.Client().Do(req)
				if err != nil {
					t.Errorf("%s: %v", method, err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || string(body) != "done" {
					t.Errorf("%s: %s %q %v", method, resp.Status, body, err)
				}
				calls.Add(1)
			}
		})
	}
	eventually(t, "both are busy", func() bool { return answered[0].Load() > 200 && answered[1].Load() > 200 })
	if err := fleetOf[0].stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	before := answered[1].Load()
	eventually(t, "the other goes on", func() bool { return answered[1].Load() > before+200 })
	close(stop)
	wg.Wait()
	t.Logf("%d calls, 0 failed", calls.Load())
}

// slow is a service with a handler that says when it began and ends when told.
func slow(t *testing.T, opts ...service.Option) (p *process, began chan struct{}, finish func()) {
	t.Helper()
	s, _ := newService(t, "users", opts...)
	began = make(chan struct{}, 100)
	release := make(chan struct{})
	finish = sync.OnceFunc(func() { close(release) })
	s.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) error {
		began <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
			return r.Context().Err()
		}
		_, err := io.WriteString(w, "done")
		return err
	})
	s.HandleFunc("GET /quick", func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, "done")
		return err
	})
	p = start(t, s)
	t.Cleanup(finish) // before the service is waited for
	return p, began, finish
}

// During the delay new requests are answered, readiness is gone, and callers are
// asked to connect elsewhere. Requests in progress finish after it.
func TestDrain(t *testing.T) {
	t.Parallel()
	r, _ := fleet(t, memregistry.New())
	p, began, finish := slow(t, service.WithRegistry(r), service.WithDrainDelay(300*time.Millisecond))
	eventually(t, "it is in rotation", func() bool { return r.Endpoints("users").Len() == 1 })
	type answer struct {
		body string
		err  error
	}
	inFlight := make(chan answer, 1)
	go func() {
		_, body, err := send(t, "GET", p.url+"/slow", nil)
		inFlight <- answer{body, err}
	}()
	<-began
	p.cancel()
	eventually(t, "it is out of rotation", func() bool { _, known := only(r, "users"); return !known })
	keeps := &http.Client{Transport: &http.Transport{}}
	resp, err := keeps.Get(p.url + "/quick")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "done" || !resp.Close || err != nil {
		t.Errorf("a request during the delay: %s %q, connection closed: %v, %v", resp.Status, body, resp.Close, err)
	}
	if resp, body := must(t, "GET", p.url+"/readyz", nil); resp.StatusCode != http.StatusServiceUnavailable || body != "draining\n" {
		t.Errorf("/readyz %s %q during the delay", resp.Status, body)
	}
	eventually(t, "the listener closes", func() bool { return status(t, p.url+"/quick") == 0 })
	select {
	case a := <-inFlight:
		t.Fatalf("the request in progress did not get its time: %+v", a)
	default:
	}
	finish()
	if a := <-inFlight; a.err != nil || a.body != "done" {
		t.Errorf("the request in progress: %+v", a)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestStopTimeout(t *testing.T) {
	t.Parallel()
	p, began, _ := slow(t, service.WithStopTimeout(200*time.Millisecond))
	failed := make(chan error, 1)
	go func() {
		_, _, err := send(t, "GET", p.url+"/slow", nil)
		failed <- err
	}()
	<-began
	err := p.stop(t)
	if !errors.Is(err, lifecycle.ErrStopTimeout) || !strings.Contains(err.Error(), "http server") || !strings.Contains(err.Error(), "still in progress were cut: 1") {
		t.Errorf("Run: %v, want what was late", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that was late got an answer")
	}
}

// The second signal ends the wait at once.
func TestForced(t *testing.T) {
	t.Parallel()
	force := make(chan struct{})
	p, began, _ := slow(t, service.WithForce(force), service.WithStopTimeout(time.Hour), service.WithDrainDelay(time.Minute))
	failed := make(chan error, 1)
	go func() {
		_, _, err := send(t, "GET", p.url+"/slow", nil)
		failed <- err
	}()
	<-began
	p.cancel()
	eventually(t, "it drains", func() bool { return status(t, p.url+"/readyz") == http.StatusServiceUnavailable })
	close(force)
	if err := p.wait(t); !errors.Is(err, lifecycle.ErrForced) {
		t.Errorf("Run: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request that was cut got an answer")
	}
}

// A connection that never sent a request does not hold up the stop: net/http
// alone would wait 5 s for one.
func TestUnusedConnectionDoesNotDelay(t *testing.T) {
	t.Parallel()
	p, _, _ := slow(t)
	conn, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := status(t, p.url+"/quick"); got != http.StatusOK { // by now the server has both
		t.Fatal(got)
	}
	begin := time.Now()
	if err := p.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// HTTP/2 without TLS works, and is drained.
func TestUnencryptedHTTP2(t *testing.T) {
	t.Parallel()
	p, began, finish := slow(t)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	done := make(chan error, 1)
	go func() {
		resp, err := (&http.Client{Transport: h2}).Get(p.url + "/slow")
		if err == nil {
			var body []byte
			if body, err = io.ReadAll(resp.Body); string(body) != "done" || resp.ProtoMajor != 2 {
				err = fmt.Errorf("%s %s %q %w", resp.Proto, resp.Status, body, err)
			}
			resp.Body.Close()
		}
		done <- err
	}()
	<-began
	p.cancel()
	eventually(t, "the listener closes", func() bool { return status(t, p.url+"/quick") == 0 })
	finish()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// events reads lines of a stream until it ends.
func events(t *testing.T, resp *http.Response) (n int, err error) {
	t.Helper()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		n++
	}
	return n, lines.Err()
}
