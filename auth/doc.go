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
//
// # Verified tokens are remembered
//
// To check a signature costs far more than all else here, and clients send the same token with every request. So a
// [JWT] remembers tokens it has verified; refused ones never. One that comes again, the same to the last byte, gets the
// same [Identity] without another check, as long as all of this holds:
//
//   - its own exp and nbf, which are looked at for each request, with the leeway; the answer is the same, to the moment,
//     as it would be without the cache,
//   - the issuer's key set is still the one it was verified with: when a fetch brings other keys, everything
//     remembered is void at once,
//   - at most a minute has gone by since it was verified.
//
// So nothing is accepted that would not be without the cache. A [JWT] remembers at most 16384 tokens and 16 MiB,
// claims included, and none that takes more than 64 KiB; tokens in use stay when others push in. A client
// that is sent away by this bound loses nothing but the saving.
//
// For this, tokens stay in the memory of the process: for a minute or two while others come, else until the next ones push
// them out. They are in its memory anyway, as headers of requests; they are good only until they expire, and
// whoever can read the memory can read them as they arrive. They are never written anywhere: neither to a file
// nor to a log, not even by printing the [JWT] itself.
package auth
