package telemetry

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

func FuzzHex(f *testing.F) {
	for _, s := range []string{"00000000", "01234567", "89abcdef", "ABCDEF00", "/:`g@GOo", "\x00\x80\xff?!zzz"} {
		f.Add(binary.LittleEndian.Uint64([]byte(s)))
	}
	f.Fuzz(func(t *testing.T, text uint64) {
		var s [8]byte
		binary.LittleEndian.PutUint64(s[:], text)
		want, err := hex.DecodeString(string(s[:]))
		valid := err == nil && string(s[:]) == strings.ToLower(string(s[:]))
		value, bad := fromHex(text)
		if (bad == 0) != valid {
			t.Fatalf("%q: bad is %x", s, bad)
		}
		if valid && (value != binary.LittleEndian.Uint32(want) || toHex(value) != text) {
			t.Fatalf("%q: %08x", s, value)
		}
	})
}

// Every pair of bytes at every place, so that no character near the digits slips
// through and no byte disturbs its neighbour.
func TestFromHex(t *testing.T) {
	t.Parallel()
	const digits = "0123456789abcdef"
	for place := range 4 {
		for high := range 256 {
			for low := range 256 {
				s := []byte("01234567")
				s[2*place], s[2*place+1] = byte(high), byte(low)
				h, l := strings.IndexByte(digits, byte(high)), strings.IndexByte(digits, byte(low))
				value, bad := fromHex(binary.LittleEndian.Uint64(s))
				if want := h >= 0 && l >= 0; (bad == 0) != want || want && byte(value>>(8*place)) != byte(h<<4|l) {
					t.Fatalf("%q: %08x, %x", s, value, bad)
				}
			}
		}
	}
}
