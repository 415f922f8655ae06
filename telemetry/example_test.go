package telemetry_test

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/keelson-go/keelson/telemetry"
)

func Example() {
	t, err := telemetry.New(telemetry.Config{Service: "user-service", LogFormat: "json", Output: os.Stderr})
	if err != nil {
		fmt.Println(err)
		return
	}
	// What the Metrics middleware does with every request:
	t.Server().Route(http.MethodGet, "").Begin()
	t.Server().Route(http.MethodGet, telemetry.RouteOf("GET /users/{id}")).End(http.StatusOK, 12*time.Millisecond)

	s := t.Server().Summary()
	fmt.Println(s.RequestCount, s.ErrorCount, s.AverageResponseTime)
	// Output: 1 0 12
}

func ExampleParseTraceparent() {
	trace, ok := telemetry.ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	child := trace.Child()
	fmt.Println(ok, trace.Sampled, child.TraceIDString(), child.SpanID != trace.SpanID)
	// Output: true true 0af7651916cd43dd8448eb211c80319c true
}
