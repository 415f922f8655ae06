//go:build linux

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keelson-go/keelson/engine/join"
	"github.com/keelson-go/keelson/service"
)

// roles are the services this program plays when it is started with one
// argument. Their manifests say command: [self, role].
var roles = map[string]func(){
	// echo is a Keelson service that tells what it gets.
	"echo": func() { join.Main(map[string]join.Constructor{"echo": newEcho}) },
	// plain knows nothing of Keelson: it has /health on PORT, and that's all.
	"plain": servePlain,
	// stubborn is plain and does not end when it is asked to.
	"stubborn": func() {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		servePlain()
	},
	// orphan is plain and takes care not to die with its parent.
	"orphan": func() {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
			fail(err)
		}
		servePlain()
	},
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func servePlain() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.Method, r.URL) })
	fail(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}

// heard is what the echo service got.
type heard struct {
	Method, Path, Query, Host, Instance string
	Header                              http.Header
}

func newEcho(_ context.Context, opts ...service.Option) (*service.Service, error) {
	s, err := service.New("echo", opts...)
	if err != nil {
		return nil, err
	}
	var slow atomic.Int64
	s.HandleFunc("/echo/", func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(heard{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Host, s.Instance(), r.Header})
	})
	s.HandleFunc("GET /echo/waiting", func(w http.ResponseWriter, _ *http.Request) error {
		_, err := fmt.Fprint(w, slow.Load())
		return err
	})
	s.HandleFunc("GET /echo/slow", func(w http.ResponseWriter, r *http.Request) error {
		d, err := time.ParseDuration(r.URL.Query().Get("d"))
		if err != nil {
			return err
		}
		slow.Add(1)
		defer slow.Add(-1)
		if r.URL.Query().Has("flush") {
			fmt.Fprintln(w, "begun")
			if err := http.NewResponseController(w).Flush(); err != nil {
				return err
			}
		}
		select {
		case <-time.After(d):
			_, err = fmt.Fprintln(w, "done")
			return err
		case <-r.Context().Done():
			return r.Context().Err()
		}
	})
	return s, nil
}
