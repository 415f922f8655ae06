package ratelimit

import "strconv"

// The header names of draft-ietf-httpapi-ratelimit-headers-11 and RFC 9110.
const (
	HeaderPolicy     = "RateLimit-Policy"
	HeaderLimit      = "RateLimit"
	HeaderRetryAfter = "Retry-After"
)

// WriteHeaders tells the client of its limit through set, which is usually
// http.Header.Set:
//
//	RateLimit-Policy: "default";q=100;w=60
//	RateLimit: "default";r=50;t=30
//	Retry-After: 1
//
// q and w are Requests and Window; r is Remaining and t is Reset. Times are whole
// seconds, rounded up. Retry-After is only there if the request was refused and
// waiting helps; clients heed it before the others.
// See draft-ietf-httpapi-ratelimit-headers-11 and RFC 9110, section 10.2.3.
func (d Decision) WriteHeaders(set func(key, value string)) {
	name := d.Limit.Name
	if name == "" {
		name = "default"
	}
	set(HeaderPolicy, item(name, ";q=", int64(d.Limit.Requests), ";w=", seconds(d.Limit.Window)))
	set(HeaderLimit, item(name, ";r=", int64(d.Remaining), ";t=", seconds(d.Reset)))
	if !d.Allowed && d.RetryAfter > 0 {
		set(HeaderRetryAfter, strconv.FormatInt(seconds(d.RetryAfter), 10))
	}
}

// item is a structured field (RFC 9651) of one string with two integer parameters.
// A valid limit's name has no character that needs escaping.
func item(name, key1 string, value1 int64, key2 string, value2 int64) string {
	b := make([]byte, 0, 128)
	b = append(append(append(b, '"'), name...), '"')
	b = strconv.AppendInt(append(b, key1...), value1, 10)
	b = strconv.AppendInt(append(b, key2...), value2, 10)
	return string(b)
}
