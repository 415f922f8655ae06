package concurrency_test

import (
	"errors"
	"fmt"

	"github.com/keelson-go/keelson/concurrency"
)

func Example() {
	limiter, err := concurrency.New(concurrency.Fixed(2))
	if err != nil {
		fmt.Println(err)
		return
	}
	first, _ := limiter.TryAcquire(concurrency.Normal)
	second, _ := limiter.TryAcquire(concurrency.Normal)

	_, err = limiter.TryAcquire(concurrency.Normal)
	fmt.Println(err, errors.Is(err, concurrency.ErrLimit))

	first.Success()
	second.Success()
	now := limiter.Snapshot()
	fmt.Println("in flight:", now.InFlight, "admitted:", now.Admitted.Normal, "rejected:", now.Rejected.Normal)
	// Output:
	// concurrency limit reached for calls of normal priority true
	// in flight: 0 admitted: 2 rejected: 1
}
