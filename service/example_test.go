package service_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
)

// A complete service: routes, a critical check, registration and an orderly stop.
func Example() {
	ctx, cancel := context.WithCancel(context.Background()) // lifecycle.Signals in main
	defer cancel()
	fleet := registry.Open(context.Background(), memregistry.New().Connect())
	defer fleet.Close()

	svc, err := service.New("user-service", service.WithVersion("1.0.0"), service.WithRegistry(fleet), service.FromEnvironment())
	if err != nil {
		fmt.Println(err)
		return
	}
	names := map[string]string{"7": "Ada"}
	svc.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) error {
		name, ok := names[r.PathValue("id")]
		if !ok {
			return problem.New(http.StatusNotFound, problem.CodeNotFound, "There is no such user.")
		}
		return json.NewEncoder(w).Encode(map[string]string{"name": name})
	})
	database := func(context.Context) error { return nil } // health.SQL(db)
	if err := svc.Health().Add("database", database, health.Critical()); err != nil {
		fmt.Println(err)
		return
	}
	svc.OnStop("close the database", time.Second, func(context.Context) error {
		fmt.Println("closing the database")
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()

	// Another service finds it by its name. Here that is the same one.
	for e := range fleet.Watch(ctx, "user-service") {
		if e.Type == registry.Register || len(e.Instances) > 0 {
			break
		}
	}
	for _, id := range []string{"7", "8"} {
		resp, err := svc.Client().Get("http://user-service/users/" + id)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode, resp.Header.Get("Content-Type"), len(body) > 0)
	}
	cancel()
	fmt.Println(<-ended)
	// Output:
	// 200 text/plain; charset=utf-8 true
	// 404 application/problem+json true
	// closing the database
	// <nil>
}
