package gateway

import (
	"net/http"
	"strings"
)

// restorePrefix puts the prefix that was stripped from the request back in front
// of the absolute paths the service tells the client, in Location and Link.
// Without it a created resource's Location, or a list's next page, would lead
// nowhere.
func restorePrefix(h http.Header, prefix string) {
	if v := h["Location"]; len(v) == 1 && needsPrefix(v[0], prefix) {
		h["Location"] = []string{prefix + v[0]}
	}
	if v := h["Link"]; len(v) > 0 {
		links := make([]string, len(v))
		for i := range v {
			links[i] = prefixLinks(v[i], prefix)
		}
		h["Link"] = links
	}
}

// needsPrefix reports whether target is an absolute path, without host, that the
// service did not prefix itself (X-Forwarded-Prefix tells it how).
func needsPrefix(target, prefix string) bool {
	return strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "//") &&
		target != prefix && !strings.HasPrefix(target, prefix+"/")
}

// prefixLinks changes the targets of a Link header's value (RFC 8288, section 3).
func prefixLinks(v, prefix string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(v); i++ {
		c := v[i]
		b.WriteByte(c)
		switch {
		case quoted && c == '\\' && i+1 < len(v):
			i++
			b.WriteByte(v[i])
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			target, _, ok := strings.Cut(v[i+1:], ">")
			if !ok {
				continue
			}
			if needsPrefix(target, prefix) {
				b.WriteString(prefix)
			}
			b.WriteString(target)
			i += len(target)
		}
	}
	return b.String()
}
