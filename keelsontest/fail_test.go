package keelsontest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/keelsontest"
	"github.com/keelson-go/keelson/service"
)

// recorder is a test that may fail: it keeps what it is told.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	messages []string
	cleanups []func()
	log      bytes.Buffer
	over     bool
}

func (r *recorder) Helper()           {}
func (r *recorder) Cleanup(f func())  { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Output() io.Writer { return r }

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		panic("Log in goroutine after the test has completed")
	}
	return r.log.Write(b)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) {
	r.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// play runs f as a test and returns what went wrong with it.
func play(t *testing.T, f func(t testing.TB)) *recorder {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	r.end()
	return r
}

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

// says checks that the test failed once, for the reason given.
func (r *recorder) says(t *testing.T, want ...string) {
	t.Helper()
	if len(r.messages) != 1 {
		t.Fatalf("%d messages: %q", len(r.messages), r.messages)
	}
	for _, w := range want {
		if !strings.Contains(r.messages[0], w) {
			t.Errorf("%q does not say %q", r.messages[0], w)
		}
	}
}

func TestWhatCannotStart(t *testing.T) {
	t.Parallel()
	broken := func(context.Context, ...service.Option) (*service.Service, error) {
		return nil, errors.New("no route to the database")
	}
	for name, tt := range map[string]struct {
		parts []keelsontest.Option
		want  []string
	}{
		"a broken constructor": {[]keelsontest.Option{keelsontest.Service("hello", hello), keelsontest.Service("broken", broken)}, []string{"broken-1", "no route to the database"}},
		"another name":         {[]keelsontest.Option{keelsontest.Service("hallo", hello)}, []string{"hallo-1", `made the service "hello"`}},
		"no instances":         {[]keelsontest.Option{keelsontest.Service("hello", hello, keelsontest.Instances(0))}, []string{"hello", "give 1 or more"}},
		"a bad route":          {[]keelsontest.Option{keelsontest.Route("no slash", "hello")}, []string{"routes[0]"}},
		"a bad environment":    {[]keelsontest.Option{keelsontest.Service("hello", hello, keelsontest.Env("KEELSON_LOG_LEVEL", "loud"))}, []string{"KEELSON_LOG_LEVEL"}},
		"a bad gateway": {[]keelsontest.Option{keelsontest.Gateway(gateway.Config{Routes: []gateway.Route{{Path: "/x"}}})},
			[]string{"routes[0]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, func(t testing.TB) {
				keelsontest.Start(t, tt.parts...)
				t.Errorf("it started")
			}).says(t, tt.want...)
		})
	}
}

// A service that ends by itself fails the test, also if nothing else notices.
func TestServiceThatEnds(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	ends := func(ctx context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := hello(ctx, opts...)
		if err != nil {
			return nil, err
		}
		s.Add("worker", func(ctx context.Context, ready func()) error {
			ready()
			select {
			case <-ctx.Done():
				return nil
			case <-end:
				return errors.New("out of work")
			}
		})
		return s, nil
	}
	play(t, func(tb testing.TB) {
		fleet := keelsontest.Start(tb, keelsontest.Service("hello", ends))
		close(end)
		eventually(t, "its end", func() bool { return fleet.Instances("hello")[0].URL() == "" })
	}).says(t, "before the test did", "hello-1", "out of work")
}

// A service that does not stop cleanly fails the test.
func TestUncleanStop(t *testing.T) {
	t.Parallel()
	sticky := func(ctx context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := hello(ctx, opts...)
		if err != nil {
			return nil, err
		}
		s.OnStop("flush", 0, func(context.Context) error { return errors.New("disk full") })
		return s, nil
	}
	play(t, func(tb testing.TB) {
		keelsontest.Start(tb, keelsontest.Service("hello", sticky))
	}).says(t, "did not stop cleanly", "hello-1", "disk full")
	play(t, func(tb testing.TB) {
		keelsontest.Start(tb, keelsontest.Service("hello", sticky)).Instances("hello")[0].Stop()
	}).says(t, "hello-1 did not stop cleanly", "disk full")
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	play(t, func(tb testing.TB) {
		keelsontest.Start(tb).Instances("nobody")
	}).says(t, `no service "nobody"`)
	play(t, func(tb testing.TB) {
		keelsontest.Start(tb).Token("not a scope")
	}).says(t, "scope")
}

// In a bubble of synctest an engine would hang.
func TestSynctest(t *testing.T) {
	t.Parallel()
	var r *recorder
	synctest.Test(t, func(t *testing.T) {
		r = play(t, func(tb testing.TB) { keelsontest.Start(tb) })
	})
	r.says(t, "synctest bubble")
}

// What is logged is the test's, with the name of who logs.
func TestLogs(t *testing.T) {
	t.Parallel()
	r := play(t, func(tb testing.TB) {
		fleet := keelsontest.Start(tb, keelsontest.Handler("chatty", http.NotFoundHandler(), keelsontest.Instances(2)))
		get(tb, fleet.ClientWith(""), fleet.Instances("chatty")[1].URL()+"/where")
	})
	if len(r.messages) > 0 {
		t.Errorf("messages %q", r.messages)
	}
	for line := range strings.Lines(r.log.String()) {
		if name, _, _ := strings.Cut(line, " │ "); !slices.Contains([]string{"keelson", "chatty-1", "chatty-2"}, name) {
			t.Errorf("a line of nobody's: %q", line)
		}
	}
	if !strings.Contains(r.log.String(), "path=/where") {
		t.Errorf("the request was not logged:\n%s", &r.log)
	}
}
