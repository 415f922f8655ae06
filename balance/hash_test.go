package balance

import (
	"fmt"
	"math/bits"
	"testing"
)

// Processes of different releases must agree where a key lives.
func TestHashStays(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]uint64{
		"": 0x418913146664a3e2, "a": 0x91d52884157103a2,
		"user-42": 0x4f4900054e3c0c6b, "12345678": 0xbc16d198192d82de,
		"0192f0c1-2d3e-7a4b-8c5d-0123456789ab": 0xee4598b2b2b123a4,
	} {
		if got := hashString(s); got != want {
			t.Errorf("%q: %#x, want %#x", s, got, want)
		}
	}
	set := NewSet([]*Endpoint{NewEndpoint("a", ""), NewEndpoint("b", ""), NewEndpoint("c", "")})
	var homes string
	for i := range 24 {
		homes += ConsistentHash(0).PickKey(set, fmt.Sprint("user-", i)).ID
	}
	if want := "cacbcababacbcaabbabaaacc"; homes != want {
		t.Errorf("keys live at %s, want %s", homes, want)
	}
}

// Each bit of the input changes each bit of the output about every other time.
func TestHashAvalanche(t *testing.T) {
	t.Parallel()
	const samples = 2000
	for _, length := range []int{1, 7, 8, 9, 36} {
		flips := 0
		for n := range samples {
			key := make([]byte, length)
			for i := range key {
				key[i] = byte(mix(uint64(n*100 + i)))
			}
			before := hashString(string(key))
			key[n%length] ^= 1 << (n / length % 8)
			flips += bits.OnesCount64(before ^ hashString(string(key)))
		}
		if mean := float64(flips) / samples; mean < 31 || mean > 33 { // deviation 0.09
			t.Errorf("a bit of %d bytes changes %.1f bits of 64", length, mean)
		}
	}
}

// Short keys that differ little, as keys do, never meet.
func TestHashDistinct(t *testing.T) {
	t.Parallel()
	seen := map[uint64]string{}
	add := func(s string) {
		h := hashString(s)
		if other, ok := seen[h]; ok && other != s {
			t.Fatalf("%q and %q have the same hash", s, other)
		}
		seen[h] = s
	}
	for i := range 20_000 {
		add(fmt.Sprint(i))
		add(fmt.Sprintf("%08d", i))
		add(fmt.Sprintf("%036d", i))
	}
	for i := range 64 {
		add(string(make([]byte, i)))
	}
}
