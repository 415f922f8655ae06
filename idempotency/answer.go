package idempotency

import (
	"encoding/binary"
	"errors"
	"maps"
	"net/http"
	"slices"
)

// answerVersion is the first byte of an encoded answer.
const answerVersion = 1

var errAnswer = errors.New("the stored answer can't be read")

// MarshalBinary writes the answer byte by byte as it is: header values need not be
// UTF-8, as JSON would have it. It never fails.
func (a Answer) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 256+len(a.Body))
	b = append(b, answerVersion, flag(a.Omitted))
	b = binary.AppendUvarint(b, uint64(a.Status))
	b = binary.AppendUvarint(b, uint64(len(a.Header)))
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		b = appendText(b, name)
		b = binary.AppendUvarint(b, uint64(len(a.Header[name])))
		for _, value := range a.Header[name] {
			b = appendText(b, value)
		}
	}
	return append(b, a.Body...), nil
}

func flag(set bool) byte {
	if set {
		return 1
	}
	return 0
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// UnmarshalBinary reads what MarshalBinary has written. The body is a part of b,
// which must not be changed after.
func (a *Answer) UnmarshalBinary(b []byte) error {
	if len(b) < 2 || b[0] != answerVersion || b[1] > 1 {
		return errAnswer
	}
	r := reader{rest: b[2:]}
	got := Answer{Omitted: b[1] == 1, Status: int(min(r.number(), 1000))}
	if got.Status > 999 {
		return errAnswer
	}
	for range r.count() {
		name := r.text()
		var values []string
		for range r.count() {
			values = append(values, r.text())
		}
		if r.failed {
			return errAnswer
		}
		if got.Header == nil {
			got.Header = http.Header{}
		}
		got.Header[name] = values
	}
	if r.failed {
		return errAnswer
	}
	if len(r.rest) > 0 {
		got.Body = r.rest
	}
	*a = got
	return nil
}

// reader takes numbers and texts off rest until something is wrong.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || r.failed {
		r.failed, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// count is a number of things of which each takes a byte at least.
func (r *reader) count() uint64 {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.failed, r.rest = true, nil
		return 0
	}
	return n
}

func (r *reader) text() string {
	n := r.count()
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}
