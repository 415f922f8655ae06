package gateway

import (
	"net/http"
	"time"
)

// ServerDefaults sets what a server at the edge needs, where srv does not say
// otherwise: 10 s for a request's header, 2 min for an idle connection, 64 KiB
// of headers, and HTTP/1.1 and HTTP/2, with TLS and without. It sets no limit to
// the time of a whole request or answer, since streams have none: the gateway
// bounds the wait for an answer, for a body that stops coming and for a client that
// does not read what it is sent; of an HTTP/2 connection that takes no byte for 1
// min the server gets rid itself.
//
// net/http itself refuses requests that two servers could split in two ways
// (both Transfer-Encoding and a body length, two lengths, malformed names).
func ServerDefaults(srv *http.Server) {
	if srv.ReadHeaderTimeout == 0 {
		srv.ReadHeaderTimeout = 10 * time.Second
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = 2 * time.Minute
	}
	if srv.MaxHeaderBytes == 0 {
		srv.MaxHeaderBytes = 64 << 10
	}
	if srv.HTTP2 == nil {
		srv.HTTP2 = new(http.HTTP2Config)
	}
	if srv.HTTP2.WriteByteTimeout == 0 {
		srv.HTTP2.WriteByteTimeout = writePatience
	}
	if srv.Protocols == nil {
		srv.Protocols = new(http.Protocols)
		srv.Protocols.SetHTTP1(true)
		srv.Protocols.SetHTTP2(true)
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
}
