package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Do calls fn until it returns nil, at most as often as p allows, and waits between
// the tries. It returns nil or
//
//   - what fn returned, as it is, if that is not worth another try, or p has
//     MaxAttempts 1, or ctx has ended and it wraps ctx's error;
//   - an [*Error] that wraps the reason and what fn returned last, if there could
//     have been another try;
//   - ctx's error, if it had ended before, or what is wrong with p. fn was not
//     called then.
//
// fn runs in the caller's goroutine and gets ctx, with the TotalTimeout and
// AttemptTimeout as its deadline if there are any. Do returns when fn does: fn must
// heed its context. If the wait before a retry would be longer than ctx has left, Do
// gives up at once instead. A panic in fn goes up.
func Do(ctx context.Context, p Policy, fn func(ctx context.Context) error) error {
	if err := p.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if p.TotalTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.TotalTimeout)
		defer cancel()
	}
	p.Budget.Deposit()
	err := p.try(ctx, fn)
	if err == nil || p.MaxAttempts == 1 {
		return err
	}
	return p.retry(ctx, fn, err)
}

// DoValue is [Do] for a function that also returns a value: the one of the last try,
// whatever its error. If p has an AttemptTimeout or TotalTimeout, the context that
// fn got is over when DoValue returns, and with it what still depends on that, such
// as the body of an http.Response.
func DoValue[T any](ctx context.Context, p Policy, fn func(ctx context.Context) (T, error)) (T, error) {
	var value T
	err := Do(ctx, p, func(ctx context.Context) (err error) {
		value, err = fn(ctx)
		return err
	})
	return value, err
}

func (p *Policy) try(ctx context.Context, fn func(ctx context.Context) error) error {
	if p.AttemptTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.AttemptTimeout)
		defer cancel()
	}
	return fn(ctx)
}

// retry goes on after the first try failed with err.
func (p *Policy) retry(ctx context.Context, fn func(ctx context.Context) error, err error) error {
	for attempt := 1; ; attempt++ {
		if isPermanent(err) {
			return err
		}
		if over := ctx.Err(); over != nil {
			return ended(attempt, over, err)
		}
		if !p.wants(err) {
			return err
		}
		if attempt >= p.attempts() {
			return &Error{attempt, ErrAttempts, err}
		}
		delay, tooLong := p.wait(err, attempt, rand.Float64())
		if deadline, ok := ctx.Deadline(); tooLong || (ok && time.Until(deadline) <= delay) {
			return &Error{attempt, ErrTime, err}
		}
		if !p.Budget.Withdraw() {
			return &Error{attempt, ErrBudget, err}
		}
		if p.OnRetry != nil {
			p.OnRetry(Event{attempt, err, delay})
		}
		if over := sleep(ctx, delay); over != nil {
			return ended(attempt, over, err)
		}
		if err = p.try(ctx, fn); err == nil {
			return nil
		}
	}
}

// ended returns the error for a context that has ended. fn's own usually says so.
func ended(attempt int, over, err error) error {
	if errors.Is(err, over) {
		return err
	}
	if errors.Is(over, context.DeadlineExceeded) {
		over = errOver
	}
	return &Error{attempt, over, err}
}

// sleep waits for d or until ctx ends, and returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
