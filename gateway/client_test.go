package gateway_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
)

type endpoints map[string]string

func (e endpoints) Endpoints(service string) *balance.Set {
	if addr, ok := e[service]; ok {
		return balance.NewSet([]*balance.Endpoint{balance.NewEndpoint(service+"-1", "http://"+addr)})
	}
	return nil
}

// The transport the gateway is made for.
func TestOverClient(t *testing.T) {
	t.Parallel()
	services := endpoints{
		"echo":    serve(t, echo),
		"refused": refused,
		"dies":    tcpService(t, answering("")),
		"hangs": serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		})),
		"ws": serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, nil)
			if err == nil {
				_ = c.Write(r.Context(), websocket.MessageText, []byte("hello"))
				_ = c.Close(websocket.StatusNormalClosure, "")
			}
		})),
	}
	tr, err := client.New(services)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	routes := []gateway.Route{{Path: "/hangs", Service: "hangs", Public: true, Timeout: time.Second}}
	for _, name := range []string{"echo", "refused", "dies", "ws", "nobody"} {
		routes = append(routes, gateway.Route{Path: "/" + name, Service: name, Public: true})
	}
	e := newEdge(t, gateway.Config{Routes: routes}, gateway.Deps{Transport: tr})
	for _, tt := range []struct {
		service string
		status  int
		code    string
	}{
		{"nobody", 503, problem.CodeNoHealthyInstance},
		{"refused", 502, problem.CodeUpstreamFailed},
		{"dies", 502, problem.CodeUpstreamFailed},
		{"hangs", 504, problem.CodeUpstreamTimeout},
	} {
		res, text := e.do("POST", "/"+tt.service, "body")
		wantProblem(t, res, text, tt.status, tt.code)
	}
	_, got := e.echo("POST", "/echo?a=%2f", "body", "X-Auth-Subject", "root", "X-Request-Id", "mine")
	if string(got.Body) != "body" || got.URI != "/echo?a=%2f" || got.Header.Get("X-Auth-Subject") != "" || len(got.Header.Values("X-Request-Id")) != 1 || len(got.Header.Values("Traceparent")) != 1 {
		t.Errorf("%+v", got)
	}
	c, _, err := websocket.Dial(t.Context(), e.url+"/ws", &websocket.DialOptions{HTTPClient: e.http})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if _, msg, err := c.Read(t.Context()); err != nil || string(msg) != "hello" {
		t.Errorf("%q, %v", msg, err)
	}
}
