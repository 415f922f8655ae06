package problem

import "net/http"

// The codes Keelson itself uses, with the status each one is sent with. A code
// is stable: clients may branch on it. Services add codes of their own in the
// same style (lower case, words joined by underscores).
const (
	CodeBadRequest           = "bad_request"            // 400, a request wrong in some other way than its body
	CodeMalformed            = "malformed_body"         // 400, the body can't be parsed
	CodeUnauthenticated      = "unauthenticated"        // 401, no credentials or bad ones
	CodeForbidden            = "forbidden"              // 403, known caller, not allowed
	CodeNotFound             = "not_found"              // 404
	CodeMethodNotAllowed     = "method_not_allowed"     // 405, the Allow header has the allowed ones
	CodeNotAcceptable        = "not_acceptable"         // 406
	CodeRequestTimeout       = "request_timeout"        // 408, the client sent its request too slowly
	CodeConflict             = "conflict"               // 409, it clashes with what is stored
	CodePreconditionFailed   = "precondition_failed"    // 412
	CodeTooLarge             = "payload_too_large"      // 413
	CodeUnsupportedMediaType = "unsupported_media_type" // 415
	CodeInvalid              = "invalid"                // 422, parsed, but a field is missing or wrong: see Problem.Errors
	CodeRateLimited          = "rate_limited"           // 429, the Retry-After header says when to come back
	CodeInternal             = "internal"               // 500
	CodeNotImplemented       = "not_implemented"        // 501
	CodeUpstreamFailed       = "upstream_failed"        // 502, the service behind refused or broke the connection
	CodeUnavailable          = "unavailable"            // 503, not able to serve now
	CodeNoHealthyInstance    = "no_healthy_instance"    // 503, the service behind has no instance in rotation
	CodeCircuitOpen          = "circuit_open"           // 503, calls to the service behind are stopped for a while: too many failed
	CodeOverloaded           = "overloaded"             // 503, more is under way than can be served; Retry-After says when to come back
	CodeUpstreamTimeout      = "upstream_timeout"       // 504, the service behind was too slow
	CodeDeadline             = "deadline_exceeded"      // 504, the request's own deadline is over
)

// CodeFor gives the general code for an HTTP status, for errors that bring a
// status and no code. A 4xx status that has none of its own is [CodeBadRequest];
// everything else is [CodeInternal].
func CodeFor(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return CodeUnauthenticated
	case http.StatusForbidden:
		return CodeForbidden
	case http.StatusNotFound:
		return CodeNotFound
	case http.StatusMethodNotAllowed:
		return CodeMethodNotAllowed
	case http.StatusNotAcceptable:
		return CodeNotAcceptable
	case http.StatusRequestTimeout:
		return CodeRequestTimeout
	case http.StatusConflict:
		return CodeConflict
	case http.StatusPreconditionFailed:
		return CodePreconditionFailed
	case http.StatusRequestEntityTooLarge:
		return CodeTooLarge
	case http.StatusUnsupportedMediaType:
		return CodeUnsupportedMediaType
	case http.StatusUnprocessableEntity:
		return CodeInvalid
	case http.StatusTooManyRequests:
		return CodeRateLimited
	case http.StatusNotImplemented:
		return CodeNotImplemented
	case http.StatusBadGateway:
		return CodeUpstreamFailed
	case http.StatusServiceUnavailable:
		return CodeUnavailable
	case http.StatusGatewayTimeout:
		return CodeUpstreamTimeout
	}
	if status >= 400 && status < 500 {
		return CodeBadRequest
	}
	return CodeInternal
}
