package natsidempotency

import (
	"errors"

	"github.com/keelson-go/keelson/idempotency"
)

// recordVersion is the first byte of a value in the bucket.
const recordVersion = 1

var errRecord = errors.New("the stored record can't be read")

// record is a value in the bucket: its version, whether it is completed, the length
// of the owner's name, the name, the fingerprint, and the answer.
type record struct {
	Completed   bool
	Owner       string // at most 255 bytes
	Fingerprint idempotency.Fingerprint
	Answer      []byte // encoded; nil unless completed
}

func (r record) encode() []byte {
	b := make([]byte, 0, 3+len(r.Owner)+len(r.Fingerprint)+len(r.Answer))
	b = append(b, recordVersion, 0, byte(len(r.Owner)))
	if r.Completed {
		b[1] = 1
	}
	b = append(b, r.Owner...)
	b = append(b, r.Fingerprint[:]...)
	return append(b, r.Answer...)
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
	} else if len(rest) > 0 {
		return record{}, errRecord
	}
	return r, nil
}
