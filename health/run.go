package health

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// firstRetry is the pause after a check's first failure.
const firstRetry = 250 * time.Millisecond

// Run runs the checks, each in a goroutine of its own, at once and then at its
// interval, until ctx ends. It returns nil when all have stopped. It may be
// called once; after that the error is [ErrRan].
func (h *Health) Run(ctx context.Context) error {
	h.mu.Lock()
	ran := h.ran
	h.ran = true
	h.mu.Unlock()
	if ran {
		return ErrRan
	}
	var watches sync.WaitGroup
	defer watches.Wait()
	for ctx.Err() == nil {
		h.mu.Lock()
		fresh := h.unstarted
		h.unstarted = nil
		h.mu.Unlock()
		for _, d := range fresh {
			watches.Go(func() { h.watch(ctx, d) })
		}
		select {
		case <-h.added:
		case <-ctx.Done():
		}
	}
	return nil
}

// watch runs one check again and again until ctx ends.
func (h *Health) watch(ctx context.Context, d *dependency) {
	retry := firstRetry
	for {
		pause := d.interval
		if h.once(ctx, d) {
			retry = firstRetry
		} else {
			pause = min(retry, d.interval)
			retry = 2 * pause
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// once runs a check and records what it says. It returns only when the check has
// returned, but a check over its time is recorded as failed when the time is up.
func (h *Health) once(parent context.Context, d *dependency) (passed bool) {
	ctx, cancel := context.WithTimeout(parent, d.timeout)
	defer cancel()
	begin := time.Now()
	result := make(chan string, 1)
	go func() {
		failure := "the check ended its goroutine" // by runtime.Goexit
		defer func() { result <- failure }()
		failure = d.ask(ctx)
	}()

	select {
	case failure := <-result:
		// A check that gave up because its time was over says so in many ways.
		if failure != "" && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			failure = d.late()
		}
		h.note(parent, d, failure, time.Since(begin))
		return failure == ""
	case <-ctx.Done():
		h.note(parent, d, d.late(), time.Since(begin))
		<-result
		return false
	}
}

// note records a result, unless Run is ending: then the check was broken off by
// us and its result says nothing.
func (h *Health) note(parent context.Context, d *dependency, failure string, took time.Duration) {
	if parent.Err() == nil {
		h.update(func() { d.record(failure, took) })
	}
}

func (d *dependency) late() string { return fmt.Sprintf("no answer within %v", d.timeout) }

// ask runs the check and returns the text of its failure, "" for a pass. A panic
// is a failure, also one of the error's own Error method.
func (d *dependency) ask(ctx context.Context) (failure string) {
	defer func() {
		if v := recover(); v != nil {
			failure = oneLine(fmt.Errorf("the check panicked: %v", v))
		}
	}()
	return oneLine(d.run(ctx))
}

// jitter varies a pause by ±10 %, so that checks of many processes spread out.
func jitter(d time.Duration) time.Duration {
	d = min(d, math.MaxInt64/2) // the longest plus a tenth would be negative
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
