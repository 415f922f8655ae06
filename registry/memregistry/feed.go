package memregistry

import (
	"context"
	"sync"
)

// feed is what one watcher has not seen yet. It is not bounded: a registry
// reads it as fast as it can, and hands slow consumers snapshots itself.
type feed[T any] struct {
	owner *Driver
	wake  chan struct{}

	mu    sync.Mutex
	items []T
	err   error
}

func newFeed[T any](owner *Driver) *feed[T] {
	return &feed[T]{owner: owner, wake: make(chan struct{}, 1)}
}

func (f *feed[T]) push(item T) {
	f.mu.Lock()
	if f.err == nil {
		f.items = append(f.items, item)
	}
	f.mu.Unlock()
	f.notify()
}

func (f *feed[T]) end(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	f.notify()
}

func (f *feed[T]) notify() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed[T]) take() ([]T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	items := f.items
	f.items = nil
	return items, f.err
}

// drain yields items until ctx, the consumer or the feed ends.
func (f *feed[T]) drain(ctx context.Context, yield func(T, error) bool) {
	for {
		items, err := f.take()
		for _, i := range items {
			if ctx.Err() != nil || !yield(i, nil) {
				return
			}
		}
		if err != nil {
			yieldError(ctx, yield, err)
			return
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
	}
}

// yieldError yields err unless it only says that ctx has ended.
func yieldError[T any](ctx context.Context, yield func(T, error) bool, err error) {
	var zero T
	if ctx.Err() == nil {
		yield(zero, err)
	}
}
