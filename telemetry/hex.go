package telemetry

// Trace ids are read and written in hexadecimal on every request. These two work
// on eight digits at once, one to each byte of a word with the first in the
// lowest, and are several times as fast as digit by digit.

const everyByte = 0x0101010101010101

// digits turns eight values of 0 to 15, a byte each, into lower-case digits.
func digits(values uint64) uint64 {
	// Adding 6 carries into the fifth bit from 10 on.
	letters := (values + 6*everyByte) >> 4 & everyByte
	return values + '0'*everyByte + letters*('a'-'0'-10)
}

// fromHex decodes eight lower-case digits to four bytes, the first in the lowest.
// If any is no such digit, bad is not 0.
func fromHex(text uint64) (value uint32, bad uint64) {
	values := (text + 9*(text>>6&everyByte)) & (0xf * everyByte)
	// What was no digit does not come back from its value.
	bad = digits(values) ^ text
	pairs := (values<<4 | values>>8) & 0x00ff00ff00ff00ff
	pairs = (pairs | pairs>>8) & 0x0000ffff0000ffff
	return uint32(pairs | pairs>>16), bad
}

// toHex is the way back.
func toHex(value uint32) uint64 {
	pairs := uint64(value)
	pairs = (pairs | pairs<<16) & 0x0000ffff0000ffff
	pairs = (pairs | pairs<<8) & 0x00ff00ff00ff00ff
	return digits((pairs>>4 | pairs<<8) & (0xf * everyByte))
}
