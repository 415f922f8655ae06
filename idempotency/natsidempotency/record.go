package natsidempotency

import (
	"bytes"
	"errors"

	"github.com/keelson-go/keelson/idempotency"
)

// recordVersion is the first byte of a value in the bucket.
const recordVersion = 1

var errRecord = errors.New("the stored record can't be read")

// room is in bytes. A bucket that is full takes only what is no larger than what it
// replaces. So a claim has more room in it than one that is renewed, and that has as
// much as the headers of its message may grow, and an answer without header and body
// needs: what was begun can be renewed and completed.
const room = 32

// record is a value in the bucket: its version, whether it is completed, the length
// of the owner's name, the name, the fingerprint, and the answer, or room for it.
type record struct {
	Completed   bool
	Owner       string // at most 255 bytes
	Fingerprint idempotency.Fingerprint
	Answer      []byte // encoded; nil unless completed
	Room        int    // bytes; 0 if completed
}

func (r record) encode() []byte {
	b := make([]byte, 0, 3+len(r.Owner)+len(r.Fingerprint)+len(r.Answer)+r.Room)
	b = append(b, recordVersion, 0, byte(len(r.Owner)))
	if r.Completed {
		b[1] = 1
	}
	b = append(b, r.Owner...)
	b = append(b, r.Fingerprint[:]...)
	b = append(b, r.Answer...)
	return append(b, make([]byte, r.Room)...)
}

func decode(b []byte) (record, error) {
	if len(b) < 3 || b[0] != recordVersion || b[1] > 1 {
		return record{}, errRecord
	}
	r := record{Completed: b[1] == 1}
	length, rest := int(b[2]), b[3:]
	if len(rest) < length+len(r.Fingerprint) {
		return record{}, errRecord
	}
	r.Owner = string(rest[:length])
	rest = rest[length:]
	rest = rest[copy(r.Fingerprint[:], rest):]
	if r.Completed {
		r.Answer = rest
	} else if r.Room = len(rest); bytes.Count(rest, []byte{0}) != r.Room {
		return record{}, errRecord
	}
	return r, nil
}
