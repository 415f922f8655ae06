package balance

import "math/bits"

// hashString is a fast 64-bit hash, after wyhash by Wang Yi. It has no secret seed, so
// that all processes send a key to the same endpoint: somebody who chooses keys can
// make them meet on one endpoint, which the bound on the load is for. It must stay as it
// is: with another one, processes of two releases would disagree.
func hashString(s string) uint64 {
	h := uint64(len(s)) ^ golden
	for len(s) >= 8 {
		// The compiler makes one load of this.
		word := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		high, low := bits.Mul64(h^word, 0xA0761D6478BD642F)
		h = high ^ low
		s = s[8:]
	}
	var rest uint64
	for i := range len(s) {
		rest = rest<<8 | uint64(s[i])
	}
	high, low := bits.Mul64(h^rest, 0xE7037ED1A0B428DB)
	return mix(high ^ low)
}

// mix makes a random number of any number: the same ones of the same. It is the
// finalizer of MurmurHash3 by Austin Appleby, as varied by David Stafford; a bijection.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
