// Package auth says who sends a request: it verifies JSON Web Tokens (RFC 7519) and API keys, and it makes the
// development key whose tokens `keelson token` prints.
//
// An [Authenticator] looks at a request's [Credentials], a view so small that it does not depend on a data plane, and
// answers with an [Identity] or an error. Callers branch on the error with errors.Is:
//
//   - [ErrNoCredentials]: nothing of the kind this authenticator reads was sent; answer 401, or try another one.
//   - [ErrInvalidToken] (and [ErrExpired], which is one): something was sent and is refused; answer 401.
//   - [ErrInsufficientScope]: the identity is known but may not do this; answer 403.
//   - [ErrUnavailable]: the keys to verify with cannot be had now; answer 503.
//
// [Challenge] writes the WWW-Authenticate header of RFC 6750 for such an error. No error of this package contains a
// token, a key or any part of one, so all may be logged.
//
// Everything fails closed: without an issuer, an audience, an expiry and an allowed asymmetric algorithm, no token is
// accepted.
package auth
