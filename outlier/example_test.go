package outlier_test

import (
	"fmt"
	"time"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/outlier"
)

func Example() {
	detector, err := outlier.New(outlier.Config{Consecutive: 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	detector.OnChange(func(c outlier.Change) { fmt.Println(c.ID, "is", c.Kind, "for", c.Reason) })

	all := balance.NewSet([]*balance.Endpoint{
		balance.NewEndpoint("a", "http://127.0.0.1:8001"),
		balance.NewEndpoint("b", "http://127.0.0.1:8002"),
	})
	picker := balance.RoundRobin()
	for range 8 {
		ep := picker.Pick(detector.InRotation(all))
		ep.Begin()
		took, failed := time.Millisecond, ep.ID == "b" // the call
		ep.End(took, failed)
		detector.Report(ep, took, failed)
	}
	for ep := range detector.InRotation(all).All() {
		fmt.Println(ep.ID, "is in rotation")
	}
	// Output:
	// b is ejected for consecutive-failures
	// a is in rotation
}
