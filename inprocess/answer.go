package inprocess

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// whole is an answer's body that is there as a whole.
type whole struct {
	rest   []byte
	end    error
	closed atomic.Bool
}

func (b *whole) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n := copy(p, b.rest)
	if b.rest = b.rest[n:]; len(b.rest) == 0 {
		return n, b.end
	}
	return n, nil
}

func (b *whole) Close() error {
	b.closed.Store(true)
	return nil
}

// pieces is an answer's body that comes as it is written.
type pieces struct {
	call    *call
	left    int64       // of a length that was announced; less than 0 if none was
	trailer http.Header // set before the end
	unhook  func() bool // from the caller's context; nil if that can't end
	over    atomic.Bool // read to its end, or closed
	closed  atomic.Bool
}

func (b *pieces) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.call.out.read(p)
	if b.left > 0 {
		if b.left -= int64(n); b.left == 0 {
			err = io.EOF
		}
	} else if errors.Is(err, io.EOF) {
		b.receiveTrailer()
	}
	if errors.Is(err, io.EOF) && !b.over.Swap(true) {
		b.settle()
	}
	return n, err
}

// Close breaks the call off if the answer was not read to its end.
func (b *pieces) Close() error {
	b.closed.Store(true)
	if !b.over.Swap(true) {
		b.call.abort(errGone)
		b.settle()
	}
	return nil
}

// settle lets go of the caller's context and of its request, which it may use for
// something else now.
func (b *pieces) settle() {
	if b.unhook != nil {
		b.unhook()
	}
	if b.call.body != nil {
		b.call.body.release(errBroken)
	}
}

// receiveTrailer fills in the response's trailer.
func (b *pieces) receiveTrailer() {
	r := &b.call.response
	if r.Trailer == nil && len(b.trailer) > 0 {
		r.Trailer = make(http.Header, len(b.trailer))
	}
	for name, values := range b.trailer {
		r.Trailer[name] = values
	}
}

// date is now as the header Date has it, which changes once a second.
func date() string {
	now := time.Now()
	if d := lastDate.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dated{now.Unix(), now.UTC().Format(http.TimeFormat)}
	lastDate.Store(d)
	return d.text
}

type dated struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dated]

// statusLines are the known ones.
var statusLines = func() map[int]string {
	m := map[int]string{}
	for code := 100; code < 600; code++ {
		if text := http.StatusText(code); text != "" {
			m[code] = strconv.Itoa(code) + " " + text
		}
	}
	return m
}()

func statusLine(code int) string {
	if line, ok := statusLines[code]; ok {
		return line
	}
	return strconv.Itoa(code) + " status code " + strconv.Itoa(code)
}
