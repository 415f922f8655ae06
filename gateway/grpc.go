package gateway

import (
	"net/http"
	"strings"
)

// codeHTTPVersion is the code of the problem for gRPC over HTTP/1.
const codeHTTPVersion = "http_version_not_supported"

// grpcType reports whether the content is said to be gRPC's. gRPC-Web
// ("application/grpc-web") is another protocol, made for HTTP/1.
func grpcType(h Header) bool {
	rest, ok := strings.CutPrefix(h.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// isGRPC reports whether the request is a gRPC call (gRPC over HTTP/2, Requests).
// Such a one may be a stream, so neither its time nor its body has the limits of
// others. The content type is the client's word; it counts for what gRPC can be.
func (x *exchange) isGRPC() bool {
	return x.in.ProtoMajor == 2 && x.in.Method == http.MethodPost && grpcType(x.Header)
}
