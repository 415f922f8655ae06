package keelsontest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/keelsontest"
	"github.com/keelson-go/keelson/service"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

// load asks for the URL until stop is called, which returns how often it was
// answered by whom, and what went wrong.
func load(client *http.Client, url string) (answered *atomic.Int64, stop func() (failures []string)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failures []string
	answered = new(atomic.Int64)
	ctx, cancel := context.WithCancel(context.Background())
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Get(url)
				if err != nil || resp.StatusCode != http.StatusOK {
					mu.Lock()
					failures = append(failures, fmt.Sprint(err, resp))
					mu.Unlock()
				}
				if err == nil {
					resp.Body.Close()
				}
				answered.Add(1)
			}
		})
	}
	return answered, func() []string {
		cancel()
		wg.Wait()
		return failures
	}
}

// registered are the ids in the registry.
func registered(fleet *keelsontest.Fleet, service string) []string {
	var ids []string
	for _, in := range fleet.Registry().Discover(service) {
		ids = append(ids, in.ID)
	}
	slices.Sort(ids)
	return ids
}

// Whoever is killed or stopped is noticed by nobody but the registry, and can be
// started again.
func TestKillAndStopUnderLoad(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*keelsontest.Instance){
		"kill": (*keelsontest.Instance).Kill,
		"stop": (*keelsontest.Instance).Stop,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fleet := keelsontest.Start(t, keelsontest.Service("hello", hello, keelsontest.Instances(3)), route)
			answered, stop := load(fleet.Client(), fleet.URL+"/api/hello")
			victim := fleet.Instances("hello")[1]
			if victim.ID() != "hello-2" || victim.Service() == nil || !strings.HasPrefix(victim.URL(), "http://127.0.0.1:") {
				t.Fatalf("%s at %s", victim.ID(), victim.URL())
			}
			eventually(t, "load", func() bool { return answered.Load() > 50 })
			port := strings.TrimPrefix(victim.URL(), "http://")
			end(victim)
			if _, err := net.Dial("tcp", port); err == nil {
				t.Error("its port still answers")
			}
			if victim.URL() != "" || victim.Service() != nil {
				t.Errorf("it still has the address %s", victim.URL())
			}
			end(victim) // once more does nothing
			eventually(t, "it to leave the registry", func() bool {
				return slices.Equal(registered(fleet, "hello"), []string{"hello-1", "hello-3"})
			})
			before := answered.Load()
			eventually(t, "load on the others", func() bool { return answered.Load() > before+50 })
			victim.Start()
			url := victim.URL()
			victim.Start() // does nothing
			if got := registered(fleet, "hello"); len(got) != 3 || url != victim.URL() {
				t.Errorf("registered after the start: %q", got)
			}
			eventually(t, "an answer of the new one", func() bool {
				_, body := get(t, fleet.Client(), fleet.URL+"/api/hello")
				return strings.HasPrefix(body, "hello-2")
			})
			if failures := stop(); len(failures) > 0 {
				t.Errorf("%d requests failed, first %s", len(failures), failures[0])
			}
		})
	}
}

// What is in progress on a killed instance is lost, and on a stopped one finished.
func TestRequestInProgress(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end  func(*keelsontest.Instance)
		code int
	}{
		"kill": {(*keelsontest.Instance).Kill, http.StatusBadGateway},
		"stop": {(*keelsontest.Instance).Stop, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered, release := make(chan struct{}), make(chan struct{})
			fleet := keelsontest.Start(t,
				keelsontest.Handler("slow", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					close(entered)
					select {
					case <-r.Context().Done():
					case <-release:
					}
				})),
				keelsontest.Route("/slow", "slow", keelsontest.Public()))
			code := make(chan int, 1)
			go func() {
				resp, err := fleet.ClientWith("").Post(fleet.URL+"/slow", "text/plain", strings.NewReader("x"))
				if err != nil {
					code <- 0
					return
				}
				resp.Body.Close()
				code <- resp.StatusCode
			}()
			<-entered
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				tt.end(fleet.Instances("slow")[0])
			}()
			if name == "stop" {
				eventually(t, "it to leave the registry", func() bool { return registered(fleet, "slow") == nil })
				close(release)
			}
			if got := <-code; got != tt.code {
				t.Errorf("the request was answered %d, want %d", got, tt.code)
			}
			<-ended
		})
	}
}

// After the last instance is gone, the route says so.
func TestNobodyLeft(t *testing.T) {
	t.Parallel()
	fleet := keelsontest.Start(t, keelsontest.Service("hello", hello), route)
	fleet.Instances("hello")[0].Stop()
	code, body := get(t, fleet.Client(), fleet.URL+"/api/hello")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "no_healthy_instance") {
		t.Errorf("%d %s", code, body)
	}
}

// Databases outlive their instances.
func TestDataOutlivesInstances(t *testing.T) {
	t.Parallel()
	var seen []string
	var mu sync.Mutex
	fleet := keelsontest.Start(t, keelsontest.Service("hello", func(ctx context.Context, opts ...service.Option) (*service.Service, error) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, service.Environment(opts...)("KEELSON_DATABASE_URL"))
		return hello(ctx, opts...)
	}))
	fleet.Instances("hello")[0].Kill()
	fleet.Instances("hello")[0].Start()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 || seen[0] != seen[1] {
		t.Errorf("databases %q", seen)
	}
}
