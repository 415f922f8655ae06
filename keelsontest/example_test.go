package keelsontest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/keelson-go/keelson/keelsontest"
	"github.com/keelson-go/keelson/service"
)

// greet is a service's constructor, as a program has it.
func greet(_ context.Context, opts ...service.Option) (*service.Service, error) {
	s, err := service.New("greeter", opts...)
	if err != nil {
		return nil, err
	}
	s.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) error {
		_, err := fmt.Fprintf(w, "hello, %s", r.PathValue("name"))
		return err
	})
	return s, nil
}

// testGreeter is what a test of it looks like.
func testGreeter(t testing.TB) {
	fleet := keelsontest.Start(t,
		keelsontest.Service("greeter", greet, keelsontest.Instances(2)),
		keelsontest.Route("/api/greet/*", "greeter", keelsontest.StripPrefix("/api")))

	fleet.Instances("greeter")[0].Kill() // nobody notices

	resp, err := fleet.Client().Get(fleet.URL + "/api/greet/ada")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(resp.StatusCode, string(body))
}

func Example() {
	// An example has no testing.T; a benchmark has something like it.
	var once sync.Once
	testing.Benchmark(func(b *testing.B) { once.Do(func() { testGreeter(b) }) })
	// Output: 200 hello, ada
}
