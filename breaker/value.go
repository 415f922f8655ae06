package breaker

import "context"

// Do is [Breaker.Do] for a function that also returns a value: what it returned,
// or T's zero value if it was not called.
func Do[T any](ctx context.Context, b *Breaker, fn func(ctx context.Context) (T, error)) (T, error) {
	var value T
	err := b.Do(ctx, func(ctx context.Context) (err error) {
		value, err = fn(ctx)
		return err
	})
	return value, err
}
