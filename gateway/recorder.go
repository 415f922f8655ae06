package gateway

import (
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	// writePatience is how long one write may wait for a client that reads nothing
	// of it. Without it such a client would hold a goroutine, the upstream's
	// connection and buffers for ever.
	writePatience = time.Minute

	// freeBytes of an answer go out over HTTP/1 without a watch: they fit into what
	// the kernel buffers. HTTP/2 has windows, which a client may keep closed from
	// the first byte.
	freeBytes = 64 << 10
)

// recorder notes what becomes of a response, and gives up on a client that does
// not read it.
//
// The watch is a timer that runs during a write, not a write deadline that
// stands: over HTTP/2 a deadline ends a stream even while nothing is written, and
// a stream of events may be silent for as long as it likes.
type recorder struct {
	http.ResponseWriter
	status   int // 0 until the header has been written
	bytes    int64
	failed   bool          // the client could not be written to
	flushed  bool          // not all is held back until the end
	patience time.Duration // for one write
	free     int64         // bytes that need no watch

	timer *time.Timer
	mu    sync.Mutex // guards until, and is held while the client is given up
	until time.Time  // zero while nothing is written
}

// Unwrap lets http.ResponseController set deadlines and hijack.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	watched := w.flushed || w.bytes+int64(len(p)) > w.free
	if watched {
		w.watch()
	}
	n, err := w.ResponseWriter.Write(p)
	if watched {
		w.unwatch()
	}
	w.bytes += int64(n)
	w.failed = w.failed || err != nil
	return n, err
}

// FlushError sends what has been written, for http.ResponseController.
func (w *recorder) FlushError() error {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.flushed = true
	w.watch()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.unwatch()
	w.failed = w.failed || err != nil && !errors.Is(err, http.ErrNotSupported)
	return err
}

// watch begins to wait for a write.
func (w *recorder) watch() {
	w.mu.Lock()
	w.until = time.Now().Add(w.patience)
	w.mu.Unlock()
	if w.timer == nil {
		w.timer = time.AfterFunc(w.patience, w.giveUp)
	} else {
		w.timer.Reset(w.patience)
	}
}

// unwatch says that the write is over. From then on giveUp does nothing.
func (w *recorder) unwatch() {
	w.timer.Stop()
	w.mu.Lock()
	w.until = time.Time{}
	w.mu.Unlock()
}

// giveUp makes the write under way fail, if it is out of time. The timer of the
// write before may be late, so it looks.
func (w *recorder) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.until.IsZero() && !time.Now().Before(w.until) {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Unix(1, 0))
	}
}

// settle is called when the handler returns: the server itself writes the rest of
// a response that was watched, and takes the deadline off when it has.
func (w *recorder) settle() {
	if w.failed || w.status == http.StatusSwitchingProtocols || w.free > 0 && w.timer == nil {
		return
	}
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.patience))
}
