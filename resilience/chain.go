package resilience

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/retry"
)

// Chain guards the calls to one dependency. What is left out is not done; the zero
// Chain just calls. It must not be changed while it is in use; its methods are
// safe for concurrent use.
type Chain struct {
	// Breaker refuses calls while the dependency keeps failing.
	Breaker *breaker.Breaker
	// Limiter refuses calls, or has them wait, while too many are under way.
	Limiter *concurrency.Limiter
	// Retry says when to try again what failed. Give it only to calls that can be
	// made twice without harm, and with a Budget. nil is one try.
	Retry *retry.Policy
	// Timeout limits each call, all its tries and waits together. 0 is no limit but
	// the caller's own.
	Timeout time.Duration
}

// Check returns an error that names the field that is wrong and what it may be. Do
// checks too.
func (c *Chain) Check() error {
	if c.Timeout < 0 {
		return fmt.Errorf("resilience: Chain.Timeout is %v: give more than 0, or 0 for none", c.Timeout)
	}
	if c.Retry != nil {
		return c.Retry.Check()
	}
	return nil
}

// Do calls fn, unless something in the chain refuses it, and again if the Retry
// says so. The package comment tells the order and the errors. fn runs in the
// caller's goroutine and must heed the context that it gets; Do returns when fn
// does. A panic in fn goes up.
func (c *Chain) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if err := c.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	if c.Retry == nil {
		_, err := c.try(ctx, fn)
		return err
	}
	tries := 0
	var last error // of the tries
	return retry.Do(ctx, *c.Retry, func(ctx context.Context) error {
		called, err := c.try(ctx, fn)
		switch {
		case err == nil:
			return nil
		case called:
			tries++
			last = err
			return err
		case last != nil:
			err = &retry.Error{Attempts: tries, Reason: err, Err: last}
		}
		return retry.Permanent(err)
	})
}

// DoValue is [Chain.Do] for a function that also returns a value: what it returned
// last, or T's zero value if it was not called. With a Timeout, or one in the Retry
// or the Breaker, the context that fn got is over when DoValue returns, and with it
// what still depends on that, such as sql.Rows.
func DoValue[T any](ctx context.Context, c *Chain, fn func(ctx context.Context) (T, error)) (T, error) {
	var value T
	err := c.Do(ctx, func(ctx context.Context) (err error) {
		value, err = fn(ctx)
		return err
	})
	return value, err
}

// try asks for leave and calls fn. called says whether it got leave.
func (c *Chain) try(ctx context.Context, fn func(ctx context.Context) error) (called bool, err error) {
	if err := c.refusal(); err != nil {
		return false, err
	}
	token, err := c.Limiter.Acquire(ctx, concurrency.PriorityFrom(ctx))
	if err != nil {
		return false, err
	}
	end := concurrency.Token.Ignore // refused, or left by a panic or Goexit
	defer func() { end(token) }()
	if c.Breaker == nil {
		called, err = true, fn(ctx)
	} else {
		err = c.Breaker.Do(ctx, func(ctx context.Context) error {
			called = true
			return fn(ctx)
		})
	}
	if called {
		end = ending(ctx, err)
	}
	return called, err
}

// refusal returns the error of an open breaker. It is asked before the limiter too,
// so that nobody waits in its queue, behind calls that hang, to be told that.
func (c *Chain) refusal() error {
	if c.Limiter == nil || c.Breaker == nil || c.Breaker.State() != breaker.Open {
		return nil
	}
	permit, err := c.Breaker.Allow()
	permit.Cancel() // if its time has run out just now; the limiter comes first then
	return err
}

// ending returns how a call that ended with err has to be told to the limiter.
func ending(ctx context.Context, err error) func(concurrency.Token) {
	switch {
	case err == nil:
		return concurrency.Token.Success
	case errors.Is(ctx.Err(), context.Canceled):
		return concurrency.Token.Abandoned
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, breaker.ErrTimeout), errors.Is(err, concurrency.ErrLimit):
		return concurrency.Token.Overloaded
	}
	return concurrency.Token.Success
}
