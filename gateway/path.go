package gateway

import (
	"errors"
	"strings"
)

// maxPath is the longest path that is looked at, in bytes as sent.
const maxPath = 8 << 10

// Reasons to refuse a path. Their texts go to the client.
var (
	errPathForm      = errors.New("the path does not begin with '/'")
	errPathLong      = errors.New("the path is over 8 KiB")
	errPathEscape    = errors.New("the path has a '%' that is not followed by two hexadecimal digits")
	errPathEmpty     = errors.New("the path has an empty segment ('//')")
	errPathDots      = errors.New("the path has a '.' or '..' segment; send it resolved")
	errPathSlash     = errors.New("the path has an encoded slash or a backslash")
	errPathForbidden = errors.New("the path has a control character")
	errQuerySpace    = errors.New("the query has a space; send it as %20")
)

// parsePath decodes a path as sent and refuses those that two programs could
// read in two ways.
func parsePath(escaped string) (string, error) {
	if escaped == "" || escaped[0] != '/' {
		return "", errPathForm
	}
	if len(escaped) > maxPath {
		return "", errPathLong
	}
	path := escaped
	if strings.IndexByte(escaped, '%') >= 0 {
		var b strings.Builder
		b.Grow(len(escaped))
		for i := 0; i < len(escaped); i++ {
			c := escaped[i]
			if c == '%' {
				var ok bool
				if c, ok = unhex(escaped[i:]); !ok {
					return "", errPathEscape
				}
				if c == '/' {
					return "", errPathSlash
				}
				i += 2
			}
			b.WriteByte(c)
		}
		path = b.String()
	}
	return path, checkPath(path)
}

func checkPath(path string) error {
	start := 1 // of the segment
	for i := 1; i <= len(path); i++ {
		if i < len(path) {
			switch c := path[i]; {
			case c == '\\':
				return errPathSlash
			case c < 0x20 || c == 0x7f:
				return errPathForbidden
			case c != '/':
				continue
			}
		}
		segment := path[start:i]
		if segment == "" && i < len(path) {
			return errPathEmpty
		}
		if dots(segment) {
			return errPathDots
		}
		start = i + 1
	}
	return nil
}

// dots reports whether a server could take segment for "." or "..": some drop
// path parameters (";x") before they resolve dots.
func dots(segment string) bool {
	if segment == "" || segment[0] != '.' {
		return false
	}
	segment, _, _ = strings.Cut(segment, ";")
	return segment == "." || segment == ".."
}

// unhex reads the escape s begins with.
func unhex(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	hi, ok1 := hexDigit(s[1])
	lo, ok2 := hexDigit(s[2])
	return hi<<4 | lo, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// trimEscaped takes n decoded bytes off the front of a path parsePath accepted
// and leaves the escaping of the rest as it was.
func trimEscaped(escaped string, n int) string {
	i := 0
	for ; n > 0 && i < len(escaped); n-- {
		if escaped[i] == '%' {
			i += 2
		}
		i++
	}
	if i >= len(escaped) {
		return "/"
	}
	return escaped[i:]
}
