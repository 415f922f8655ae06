package inprocess

import (
	"os"
	"sync"
	"time"
)

// window is how much one side may be ahead of the other in a body: about what the
// buffers of a loopback connection hold at least. Without any, a handler would keep
// what it holds (a row lock, a database connection) until its caller gets round to
// reading even a short answer.
const window = 64 << 10

// pipe is a body under way from one goroutine to another.
type pipe struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte // buf[off:] is unread
	off     int
	end     error // what reading gets when all is read; nil while there may be more
	broken  error // what writing gets, and reading at once if dropped
	dropped bool

	reading, writing deadline
}

// deadline ends waiting in one direction. Once it has passed it stays so.
type deadline struct {
	timer  *time.Timer
	passed bool
	set    uint // counts, so that a timer that fires late is not taken for the next
}

func (p *pipe) init() { p.changed.L = &p.mu }

// seed is the first write, of b itself and without waiting.
func (p *pipe) seed(b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failed(); err != nil {
		return err
	}
	p.buf = b
	return nil
}

// write waits for room, and fails when the other side has gone.
func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if err := p.failed(); err != nil {
			return n, err
		}
		if len(b) == 0 {
			return n, nil
		}
		if room := window - (len(p.buf) - p.off); room > 0 {
			k := min(room, len(b))
			if len(p.buf)+k > cap(p.buf) && p.off > 0 {
				p.buf = p.buf[:copy(p.buf, p.buf[p.off:])]
				p.off = 0
			}
			p.buf = append(p.buf, b[:k]...)
			b = b[k:]
			n += k
			p.changed.Broadcast()
			continue
		}
		p.changed.Wait()
	}
}

// failed says why nothing can be written; p.mu is held.
func (p *pipe) failed() error {
	switch {
	case p.broken != nil:
		return p.broken
	case p.writing.passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// read waits for something to read, or for the end.
func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.dropped:
			return 0, p.broken
		case p.reading.passed:
			return 0, os.ErrDeadlineExceeded
		case p.off < len(p.buf):
			n := copy(b, p.buf[p.off:])
			if p.off += n; p.off == len(p.buf) {
				p.buf, p.off = p.buf[:0], 0
			}
			p.changed.Broadcast()
			return n, nil
		case p.end != nil:
			return 0, p.end
		case len(b) == 0:
			return 0, nil
		}
		p.changed.Wait()
	}
}

// finish says that there will be no more, and what reading gets at the end. Only
// the first call counts.
func (p *pipe) finish(end error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end == nil {
		p.end = end
		p.changed.Broadcast()
	}
}

// drop forgets what is unread: from now on both sides get err. Only the first call
// counts.
func (p *pipe) drop(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken == nil {
		p.broken, p.dropped = err, true
		p.buf, p.off = nil, 0
		p.changed.Broadcast()
	}
}

// setDeadline has waiting in one direction end at t; the zero time is never.
func (p *pipe) setDeadline(d *deadline, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.passed {
		return
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.set++
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		p.changed.Broadcast()
		return
	}
	set := d.set
	d.timer = time.AfterFunc(left, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if d.set == set {
			d.passed = true
			p.changed.Broadcast()
		}
	})
}

// stopTimers ends the deadlines, which are over with the handler.
func (p *pipe) stopTimers() {
	p.setDeadline(&p.reading, time.Time{})
	p.setDeadline(&p.writing, time.Time{})
}

// state says why nothing can be written, if so.
func (p *pipe) state() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed()
}
