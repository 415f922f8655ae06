package inprocess

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// Kinds of bytes in headers.
const (
	tokenByte byte = 1 << iota // may be in a name (RFC 9110, section 5.6.2)
	valueByte                  // may be in a value: all but controls, and the tab
	hostByte                   // may be in a host with a port
)

var bytesOf = func() (kinds [256]byte) {
	for c := range 256 {
		if c >= ' ' && c != 0x7f || c == '\t' {
			kinds[c] |= valueByte
		}
		alphanumeric := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if alphanumeric || c < 0x80 && strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			kinds[c] |= tokenByte
		}
		if alphanumeric || c < 0x80 && strings.ContainsRune("!$%&'()*+,-.:;=[]_~", rune(c)) {
			kinds[c] |= hostByte
		}
	}
	return kinds
}()

// made reports whether s has bytes of one kind alone.
func made(s string, of byte) bool {
	for i := range len(s) {
		if bytesOf[s[i]]&of == 0 {
			return false
		}
	}
	return true
}

func validToken(s string) bool { return s != "" && made(s, tokenByte) }

func validValue(s string) bool { return made(s, valueByte) }

// checkField refuses a name and values that can't be sent. Values may be secret, so
// the error does not show them.
func checkField(what, name string, values []string) error {
	if !validToken(name) {
		return fmt.Errorf("inprocess: invalid %s name %q", what, name)
	}
	for _, v := range values {
		if !validValue(v) {
			return fmt.Errorf("inprocess: invalid %s value for %q", what, name)
		}
	}
	return nil
}

// first is h.Get of a name in canonical form.
func first(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// copier copies header values into one piece of memory, each with no room behind
// it, so that appending to one can't reach another, or the original.
type copier struct {
	slab  []string
	blank bool   // there were names without values
	bad   string // a name with a value that can't be sent
}

// newCopier has room for n values, and makes more as it needs.
func newCopier(n int) copier { return copier{slab: make([]string, 0, n)} }

// one returns a value alone.
func (c *copier) one(v string) []string {
	c.slab = append(c.slab, v)
	n := len(c.slab)
	return c.slab[n-1 : n : n]
}

// add copies the values to to[name], as the other side would read them: without space
// around. The name is in canonical form.
func (c *copier) add(to http.Header, name string, values []string) {
	if len(values) == 0 {
		return
	}
	begin := len(c.slab)
	for _, v := range values {
		c.slab = append(c.slab, textproto.TrimString(v))
	}
	end := len(c.slab)
	if prior := to[name]; prior != nil { // in another spelling
		to[name] = append(prior, c.slab[begin:end]...)
		return
	}
	to[name] = c.slab[begin:end:end]
}

// lines makes spaces of line breaks in values, as net/http does for answers and
// trailers.
var lines = strings.NewReplacer("\n", " ", "\r", " ")

// copyHeader copies a handler's header, or trailers, with room for more values. Names
// that can't be sent are left out, and line breaks in values become spaces. trailers
// reports whether there are names with http.TrailerPrefix, which are left out, too.
func copyHeader(h http.Header, more int) (to http.Header, values copier, trailers bool) {
	values = newCopier(len(h) + more)
	to = make(http.Header, len(h)+more)
	for name, vv := range h {
		if !validToken(name) {
			trailers = trailers || strings.HasPrefix(name, http.TrailerPrefix)
			continue
		}
		name = http.CanonicalHeaderKey(name)
		if slices.ContainsFunc(vv, func(v string) bool { return !validValue(v) }) {
			vv = slices.Clone(vv)
			for i := range vv {
				if vv[i] = lines.Replace(vv[i]); !validValue(vv[i]) {
					values.bad = name
				}
			}
		}
		if len(vv) == 0 {
			to[name], values.blank = nil, true
			continue
		}
		values.add(to, name, vv)
	}
	return to, values, trailers
}

// eachElement calls f for each element of a list of names.
func eachElement(values []string, f func(name string)) {
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				f(http.CanonicalHeaderKey(name))
			}
		}
	}
}

// notInTrailers are names that say how a message is to be taken; they can't come
// after it (RFC 9110, section 6.5.1).
func notInTrailers(name string) bool {
	switch name {
	case "Transfer-Encoding", "Content-Length", "Trailer", "Host", "Connection", "Content-Encoding", "Content-Range",
		"Content-Type", "Authorization", "Cache-Control", "Expect", "Max-Forwards", "Pragma", "Range", "Realm", "Te",
		"Www-Authenticate", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection":
		return true
	}
	return strings.HasPrefix(name, "If-")
}
