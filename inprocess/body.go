package inprocess

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// requestBody is a request's body as the handler reads it.
type requestBody interface {
	io.ReadCloser
	// release lets go of the caller's body: reading gets err from now on. It waits
	// for nobody, and only the first call counts.
	release(err error)
	setDeadline(t time.Time)
}

// checked counts a body of a length that was announced.
type checked struct {
	io.Reader
	announced, seen int64 // announced < 0: unknown
}

// Read fails where the body is shorter or longer than announced.
func (c *checked) Read(p []byte) (int, error) {
	if c.announced >= 0 && int64(len(p)) > c.announced-c.seen+1 {
		p = p[:c.announced-c.seen+1] // one more, to see that there is none
	}
	n, err := c.Reader.Read(p)
	c.seen += int64(n)
	switch {
	case c.announced < 0:
	case c.seen > c.announced:
		return n - int(c.seen-c.announced), fmt.Errorf("ContentLength is %d, but the body has more", c.announced)
	case c.seen < c.announced && errors.Is(err, io.EOF):
		return n, fmt.Errorf("ContentLength is %d, but the body has %d bytes", c.announced, c.seen)
	}
	return n, err
}

// replayable is a body that can be had again (GetBody), which is one in memory, or
// a file: reading it waits for nobody, so the handler does it itself.
type replayable struct {
	call   *call
	source io.ReadCloser
	reader checked

	mu     sync.Mutex // held while source is used
	err    error      // what reading gets
	closed bool       // source is
	over   atomic.Pointer[error]
}

func (b *replayable) Read(p []byte) (int, error) {
	defer b.settle()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.over.Load(); err != nil {
		return 0, *err
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	n, err := b.reader.Read(p)
	if err == nil && b.reader.announced >= 0 && b.reader.seen == b.reader.announced {
		// Readers that know the length don't come again for the end.
		var one [1]byte
		_, err = b.reader.Read(one[:])
	}
	if errors.Is(err, io.EOF) {
		if bad := b.call.receiveTrailer(); bad != nil {
			err = bad
		}
	} else if err != nil {
		b.err = errBroken
		b.call.abort(fmt.Errorf("inprocess: read the request's body: %w", err))
		return n, errBroken
	}
	b.err = err
	return n, err
}

func (b *replayable) Close() error {
	b.release(http.ErrBodyReadAfterClose)
	return nil
}

func (b *replayable) release(err error) {
	if b.over.CompareAndSwap(nil, &err) {
		b.settle()
	}
}

// settle closes the caller's body once it is released, unless somebody reads it:
// then that one does.
func (b *replayable) settle() {
	if b.over.Load() == nil || !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		_ = b.source.Close() // nobody is there to tell
	}
}

// setDeadline has nothing to do: reading never waits.
func (*replayable) setDeadline(time.Time) {}

// streamed is a body that may be long in coming. A goroutine reads it, so that the
// handler's reading can end when the call does.
type streamed struct {
	call   *call
	source io.ReadCloser
	reader checked
	in     pipe
	begin  sync.Once // of the goroutine
	over   atomic.Bool
	inside atomic.Bool // the goroutine may be in source.Read
	close  sync.Once
}

var chunks = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// start begins reading, as far as the window allows. The server already counts the
// goroutine.
func (b *streamed) start() { b.begin.Do(func() { go b.pump() }) }

func (b *streamed) pump() {
	defer b.call.server.leave()
	defer b.closeSource()
	chunk := chunks.Get().(*[32 << 10]byte)
	defer chunks.Put(chunk)
	for {
		b.inside.Store(true)
		if b.over.Load() {
			return
		}
		n, err := b.reader.Read(chunk[:])
		b.inside.Store(false)
		if n > 0 {
			if _, err := b.in.write(chunk[:n]); err != nil {
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			b.in.finish(io.EOF)
			return
		default:
			if !b.over.Load() {
				b.call.abort(fmt.Errorf("inprocess: read the request's body: %w", err))
			}
			return
		}
	}
}

func (b *streamed) Read(p []byte) (int, error) {
	b.start()
	n, err := b.in.read(p)
	if errors.Is(err, io.EOF) {
		if bad := b.call.receiveTrailer(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

func (b *streamed) Close() error {
	b.release(http.ErrBodyReadAfterClose)
	return nil
}

func (b *streamed) release(err error) {
	if b.over.Swap(true) {
		return
	}
	b.in.drop(err)
	b.in.stopTimers()
	b.begin.Do(func() { // it was never asked for
		b.closeSource()
		b.call.server.leave()
	})
	if b.inside.Load() && b.call.server.fork() {
		// Reading may wait for a caller that has stopped sending. Closing ends that
		// for most bodies, as with a pipe; with some, closing waits for it.
		go func() {
			defer b.call.server.leave()
			b.closeSource()
		}()
	}
}

func (b *streamed) setDeadline(t time.Time) { b.in.setDeadline(&b.in.reading, t) }

func (b *streamed) closeSource() {
	b.close.Do(func() { _ = b.source.Close() }) // nobody is there to tell
}
