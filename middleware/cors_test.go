package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/middleware"
)

func TestCORSConfig(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		opts middleware.CORSOptions
		want string // in the error; "" for none
	}{
		{"nothing", middleware.CORSOptions{}, ""},
		{"origins", middleware.CORSOptions{Origins: []string{"https://shop.example", "http://localhost:5173"}}, ""},
		{"port", middleware.CORSOptions{Origins: []string{"http://localhost:80801"}}, "1 to 65535"},
		{"IPv6", middleware.CORSOptions{Origins: []string{"http://[::1]:8080"}}, ""},
		{"any", middleware.CORSOptions{Origins: []string{"*"}, Headers: []string{"*"}, Exposed: []string{"*"}}, ""},
		{"credentials", middleware.CORSOptions{Origins: []string{"https://a.example"}, Credentials: true, MaxAge: time.Hour}, ""},
		{"credentials for all", middleware.CORSOptions{Origins: []string{"*"}, Credentials: true}, "Credentials can't be allowed to every origin"},
		{"star among others", middleware.CORSOptions{Origins: []string{"https://a.example", "*"}}, `"*" among others`},
		{"no scheme", middleware.CORSOptions{Origins: []string{"a.example"}}, "write scheme://host"},
		{"null", middleware.CORSOptions{Origins: []string{"null"}}, "write scheme://host"},
		{"empty", middleware.CORSOptions{Origins: []string{""}}, "write scheme://host"},
		{"slash at the end", middleware.CORSOptions{Origins: []string{"https://a.example/"}}, "an origin is https://a.example,"},
		{"user", middleware.CORSOptions{Origins: []string{"https://u@a.example"}}, "without path"},
		{"upper-case", middleware.CORSOptions{Origins: []string{"https://A.example"}}, "lower case"},
		{"pattern", middleware.CORSOptions{Origins: []string{"https://*.example"}}, "patterns are not supported"},
		{"default port", middleware.CORSOptions{Origins: []string{"https://a.example:443"}}, "own port"},
		{"empty port", middleware.CORSOptions{Origins: []string{"https://a.example:"}}, "own port"},
		{"method", middleware.CORSOptions{Origins: []string{"*"}, Methods: []string{"PUT,GET"}}, "Methods has"},
		{"header", middleware.CORSOptions{Origins: []string{"*"}, Headers: []string{"A B"}}, "Headers has"},
		{"star among headers", middleware.CORSOptions{Origins: []string{"*"}, Headers: []string{"A", "*"}}, "Headers has"},
		{"exposed", middleware.CORSOptions{Origins: []string{"*"}, Exposed: []string{"A\r\nB"}}, "Exposed has"},
		{"exposed star with credentials", middleware.CORSOptions{Origins: []string{"https://a.example"}, Credentials: true, Exposed: []string{"*"}}, "Exposed has"},
		{"max age", middleware.CORSOptions{Origins: []string{"*"}, MaxAge: time.Millisecond}, "MaxAge is 1ms"},
		{"negative max age", middleware.CORSOptions{Origins: []string{"*"}, MaxAge: -time.Second}, "MaxAge is -1s"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mw, err := middleware.CORS(c.opts)
			switch {
			case c.want == "" && (err != nil || mw == nil):
				t.Errorf("error %v", err)
			case c.want != "" && (err == nil || mw != nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// corsHeaders leaves the CORS headers and Vary of a response.
func corsHeaders(h http.Header) map[string]string {
	got := map[string]string{}
	for name, values := range h {
		if short, ok := strings.CutPrefix(name, "Access-Control-"); ok {
			got[short] = strings.Join(values, "|")
		}
		if name == "Vary" {
			got[name] = strings.Join(values, "|")
		}
	}
	return got
}

func TestCORS(t *testing.T) {
	t.Parallel()
	exact := middleware.CORSOptions{Origins: []string{"https://a.example"}, Credentials: true, Exposed: []string{"X-Total", "Link"}, MaxAge: time.Hour}
	anyone := middleware.CORSOptions{Origins: []string{"*"}, Methods: []string{"GET", "PUT"}, Headers: []string{"*"}}
	const (
		methods   = "GET, HEAD, POST, PUT, PATCH, DELETE"
		headers   = "Authorization, Content-Type, Idempotency-Key, Request-Timeout, X-Request-Id, Traceparent, Tracestate"
		preflight = "Access-Control-Request-Method|Access-Control-Request-Headers"
	)
	cases := []struct {
		name   string
		opts   middleware.CORSOptions
		method string
		header []string
		status int // 200 from the handler, 204 and 403 for preflights
		want   map[string]string
	}{
		{"no origin", exact, "GET", nil, 200, map[string]string{"Vary": "Origin"}},
		{"allowed", exact, "GET", []string{"Origin", "https://a.example"}, 200,
			map[string]string{"Vary": "Origin", "Allow-Origin": "https://a.example", "Allow-Credentials": "true", "Expose-Headers": "X-Total, Link"}},
		{"not allowed", exact, "GET", []string{"Origin", "https://b.example"}, 200, map[string]string{"Vary": "Origin"}},
		{"two origins", exact, "GET", []string{"Origin", "https://a.example", "Origin", "https://b.example"}, 200, map[string]string{"Vary": "Origin"}},
		{"a longer host", exact, "GET", []string{"Origin", "https://a.example.evil.example"}, 200, map[string]string{"Vary": "Origin"}},
		{"null", exact, "GET", []string{"Origin", "null"}, 200, map[string]string{"Vary": "Origin"}},
		{"anyone", anyone, "GET", []string{"Origin", "https://b.example"}, 200, map[string]string{"Allow-Origin": "*"}},
		{"nothing configured", middleware.CORSOptions{}, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "GET"}, 200, map[string]string{}},
		{"OPTIONS that is no preflight", exact, "OPTIONS", []string{"Origin", "https://a.example"}, 200,
			map[string]string{"Vary": "Origin", "Allow-Origin": "https://a.example", "Allow-Credentials": "true", "Expose-Headers": "X-Total, Link"}},
		{"preflight", exact, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization,content-type"}, 204,
			map[string]string{"Vary": preflight + "|Origin", "Allow-Origin": "https://a.example", "Allow-Credentials": "true", "Allow-Methods": methods, "Allow-Headers": headers, "Max-Age": "3600"}},
		{"preflight of a stranger", exact, "OPTIONS", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "PUT"}, 403,
			map[string]string{"Vary": preflight + "|Origin"}},
		{"preflight, method", exact, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "TRACE"}, 403,
			map[string]string{"Vary": preflight + "|Origin", "Allow-Origin": "https://a.example", "Allow-Credentials": "true"}},
		{"preflight, header", exact, "OPTIONS", []string{"Origin", "https://a.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-secret"}, 403,
			map[string]string{"Vary": preflight + "|Origin", "Allow-Origin": "https://a.example", "Allow-Credentials": "true"}},
		{"preflight, anyone", anyone, "OPTIONS", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-secret, Authorization"}, 204,
			map[string]string{"Vary": preflight, "Allow-Origin": "*", "Allow-Methods": "GET, PUT", "Allow-Headers": "x-secret, authorization", "Max-Age": "600"}},
		{"preflight, no headers", anyone, "OPTIONS", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "PUT"}, 204,
			map[string]string{"Vary": preflight, "Allow-Origin": "*", "Allow-Methods": "GET, PUT", "Max-Age": "600"}},
		{"preflight, odd header", anyone, "OPTIONS", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "a b"}, 403,
			map[string]string{"Vary": preflight, "Allow-Origin": "*"}},
		{"preflight, too many headers", anyone, "OPTIONS", []string{"Origin", "https://b.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", strings.Repeat("a,", 65)}, 403,
			map[string]string{"Vary": preflight, "Allow-Origin": "*"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mw, err := middleware.CORS(c.opts)
			if err != nil {
				t.Fatal(err)
			}
			ran := false
			r := httptest.NewRequest(c.method, "/nowhere", nil)
			for i := 0; i < len(c.header); i += 2 {
				r.Header.Add(c.header[i], c.header[i+1])
			}
			w := serve(mw(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true })), r)
			if w.Code != c.status || ran != (c.status == 200) {
				t.Errorf("status %d, handler ran: %v", w.Code, ran)
			}
			if diff := cmp.Diff(c.want, corsHeaders(w.Header())); diff != "" {
				t.Errorf("headers (-want +got): %s", diff)
			}
			if c.status == 403 {
				wantProblem(t, w.Result(), w.Body.Bytes(), 403, "forbidden")
			}
		})
	}
}

func FuzzCORSPreflight(f *testing.F) {
	f.Add("https://a.example", "PUT", "content-type")
	f.Add("null", "*", "a\r\nb,c")
	f.Fuzz(func(t *testing.T, origin, method, headers string) {
		mw, err := middleware.CORS(middleware.CORSOptions{Origins: []string{"https://a.example"}, Headers: []string{"*"}})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("OPTIONS", "/", nil)
		r.Header["Origin"] = []string{origin}
		r.Header["Access-Control-Request-Method"] = []string{method}
		r.Header["Access-Control-Request-Headers"] = []string{headers}
		w := serve(mw(http.NotFoundHandler()), r)
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != "" && got != "https://a.example" {
			t.Fatalf("origin %q got %q", origin, got)
		}
		if w.Code == http.StatusNoContent && origin != "https://a.example" {
			t.Fatalf("origin %q passed", origin)
		}
		if got := w.Header().Get("Access-Control-Allow-Headers"); strings.ContainsAny(got, "\r\n\x00") {
			t.Fatalf("headers %q gave %q", headers, got)
		}
	})
}
