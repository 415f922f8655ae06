package middleware

import (
	"context"
	"sync"
	"time"
)

// patience is the context of a request whose caller waits until a time for the
// answer to begin. It has that deadline until then, and after that only its
// parent's: so an answer that has begun may stream for as long as the caller stays.
//
// The standard library has no deadline that can be taken off, and a context that is
// cancelled in its place would give its children Canceled for an error.
type patience struct {
	context.Context // of the request
	at              time.Time
	timer           *time.Timer
	unhook          func() bool // from the parent
	done            chan struct{}

	mu     sync.Mutex
	err    error
	lifted bool
	hooks  map[*func()]struct{} // what AfterFunc was given
}

// wait returns a copy of ctx that ends when left is over, unless it is lifted
// before. Its stop must be called.
func wait(ctx context.Context, left time.Duration) *patience {
	p := &patience{Context: ctx, at: time.Now().Add(left), done: make(chan struct{})}
	p.timer = time.AfterFunc(left, func() { p.end(context.DeadlineExceeded, true) })
	p.unhook = context.AfterFunc(ctx, func() { p.end(ctx.Err(), false) })
	return p
}

// lift takes the deadline off. It comes too late if the context has ended, and does
// nothing to a nil p.
func (p *patience) lift() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.lifted = true
	p.mu.Unlock()
	p.timer.Stop()
}

// stop ends the context, as the one of a request whose handler has returned.
func (p *patience) stop() {
	p.timer.Stop()
	p.unhook()
	p.end(context.Canceled, false)
}

// end ends the context, unless it has ended; if due, because the caller's time is
// over, unless that counts no more.
func (p *patience) end(err error, due bool) {
	p.mu.Lock()
	if p.err != nil || due && p.lifted {
		p.mu.Unlock()
		return
	}
	p.err = err
	close(p.done)
	hooks := p.hooks
	p.hooks = nil
	p.mu.Unlock()
	for f := range hooks {
		(*f)()
	}
}

// Deadline implements context.Context.
func (p *patience) Deadline() (time.Time, bool) {
	parent, ok := p.Context.Deadline()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lifted || ok && parent.Before(p.at) {
		return parent, ok
	}
	return p.at, true
}

// Done implements context.Context.
func (p *patience) Done() <-chan struct{} { return p.done }

// Err implements context.Context.
func (p *patience) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// AfterFunc is how the standard library links a child to a context that is not its
// own; without it each child would take a goroutine. What it gives ends the child,
// and does not wait for anything.
func (p *patience) AfterFunc(f func()) (stop func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		go f() // it may want a lock of the caller's
		return func() bool { return false }
	}
	if p.hooks == nil {
		p.hooks = map[*func()]struct{}{}
	}
	p.hooks[&f] = struct{}{}
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		_, waiting := p.hooks[&f]
		delete(p.hooks, &f)
		return waiting
	}
}
