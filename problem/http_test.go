package problem_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/problem"
	"pgregory.net/rapid"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "r1")
	w.Header().Set("Allow", "GET")
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Content-Encoding", "gzip")
	w.Header().Set("Etag", `"1"`)
	w.Header().Set("Content-Disposition", "attachment")
	w.Header().Set("Cache-Control", "max-age=60")
	problem.Write(w, httptest.NewRequest("POST", "/a%2Fb/c?token=secret", nil), problem.New(405, problem.CodeMethodNotAllowed, "Use <GET>."))

	resp := w.Result()
	const body = `{"type":"urn:keelson:problem:method_not_allowed","title":"Method Not Allowed","status":405,` +
		`"detail":"Use \u003cGET\u003e.","instance":"/a%2Fb/c","code":"method_not_allowed","requestId":"r1"}` + "\n"
	if got := w.Body.String(); got != body || resp.StatusCode != 405 {
		t.Errorf("status %d, body\n%s want 405,\n%s", resp.StatusCode, got, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Allow": "GET", "Content-Encoding": "", "Content-Disposition": "", "Etag": "", "X-Request-Id": "r1",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if resp.ContentLength != int64(len(body)) {
		t.Errorf("Content-Length = %d, want %d", resp.ContentLength, len(body))
	}
}

func TestWriteKeepsWhatIsGiven(t *testing.T) {
	t.Parallel()
	p := problem.New(404, problem.CodeNotFound, "")
	p.RequestID, p.Instance = "mine", "/mine"
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "other")
	problem.Write(w, httptest.NewRequest("GET", "/other", nil), p)
	got, err := problem.Decode(w.Result())
	if err != nil || got.RequestID != "mine" || got.Instance != "/mine" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWriteOddErrors(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"nil": nil, "nil problem": (*problem.Problem)(nil), "no status": &problem.Problem{Detail: "?"},
		"a status net/http would panic at": &problem.Problem{Status: 12345}, "foreign": errors.New("secret"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			problem.Write(w, httptest.NewRequest("GET", "/", nil), err)
			if w.Code != 500 || !strings.Contains(w.Body.String(), `"status":500`) || strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestWriteHead(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, r, problem.New(404, problem.CodeNotFound, "Nothing here."))
	}))
	defer srv.Close()
	get, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer get.Body.Close()
	head, err := srv.Client().Head(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer head.Body.Close()
	body, err := io.ReadAll(head.Body)
	if err != nil || len(body) != 0 || head.StatusCode != 404 || head.ContentLength != get.ContentLength {
		t.Errorf("HEAD: %d, length %d (GET %d), body %q, %v", head.StatusCode, head.ContentLength, get.ContentLength, body, err)
	}
}

func response(status int, contentType, body string) *http.Response {
	return &http.Response{
		StatusCode: status,
		Header:     http.Header{"Content-Type": {contentType}},
		Body:       io.NopCloser(strings.NewReader(body)),
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, contentType, body string
		want                    *problem.Problem // nil: ErrNotProblem
	}{
		{"all members", "application/problem+json; charset=utf-8",
			`{"type":"urn:x","title":"T","status":422,"detail":"D","instance":"/i","code":"c","requestId":"r","traceId":"t","retryable":true,"errors":[{"pointer":"/a","detail":"d"}]}`,
			&problem.Problem{Type: "urn:x", Title: "T", Status: 422, Detail: "D", Instance: "/i", Code: "c", RequestID: "r", TraceID: "t",
				Retryable: true, Errors: []problem.FieldError{{Pointer: "/a", Detail: "d"}}}},
		{"an empty object", "application/problem+json", `{}`, &problem.Problem{Type: "about:blank", Status: 422, Code: "invalid"}},
		{"the status line wins", "application/problem+json", `{"status":200}`, &problem.Problem{Type: "about:blank", Status: 422, Code: "invalid"}},
		{"wrong types, unknown members, other case", "application/problem+json",
			`{"type":7,"title":null,"detail":["x"],"retryable":"yes","errors":{"a":1},"balance":30,"Instance":"/i","code":"c"}`,
			&problem.Problem{Type: "about:blank", Status: 422, Code: "c"}},
		{"errors right in part only", "application/problem+json", `{"errors":[{"pointer":"/a","detail":"d"},{"pointer":7}]}`,
			&problem.Problem{Type: "about:blank", Status: 422, Code: "invalid"}},
		{"plain JSON", "application/json", `{"detail":"x"}`, nil},
		{"no media type", "", `{}`, nil},
		{"a bad media type", "application/problem+json; =", `{}`, nil},
		{"empty", "application/problem+json", ``, nil},
		{"null", "application/problem+json", `null`, nil},
		{"an array", "application/problem+json", `[]`, nil},
		{"more after it", "application/problem+json", `{} {}`, nil},
		{"cut off", "application/problem+json", `{"detail":"x`, nil},
		{"just within the limit", "application/problem+json", `{}` + strings.Repeat(" ", problem.MaxDecode-2),
			&problem.Problem{Type: "about:blank", Status: 422, Code: "invalid"}},
		{"over the limit", "application/problem+json", `{}` + strings.Repeat(" ", problem.MaxDecode-1), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := problem.Decode(response(422, tt.contentType, tt.body))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Decode (-want +got):\n%s", diff)
			}
			if isNot := errors.Is(err, problem.ErrNotProblem); isNot != (tt.want == nil) || (err != nil) != isNot {
				t.Errorf("err = %v", err)
			}
		})
	}
}

func TestDecodeReadError(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	resp := response(500, problem.ContentType, "")
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(broken)))
	if _, err := problem.Decode(resp); !errors.Is(err, broken) || errors.Is(err, problem.ErrNotProblem) {
		t.Errorf("err = %v, want %v", err, broken)
	}
}

// A body without end is not read to its end.
func TestDecodeReadsNoMoreThanItMay(t *testing.T) {
	t.Parallel()
	resp := response(500, problem.ContentType, "")
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat(" ", problem.MaxDecode+1)), iotest.ErrReader(errors.New("read on"))))
	if _, err := problem.Decode(resp); !errors.Is(err, problem.ErrNotProblem) {
		t.Errorf("err = %v", err)
	}
}

// What Write sends, Decode reads back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	text := rapid.StringN(0, 40, 200)
	rapid.Check(t, func(t *rapid.T) {
		sent := &problem.Problem{
			Type: "urn:" + text.Draw(t, "type"), Title: text.Draw(t, "title"), Status: rapid.IntRange(400, 599).Draw(t, "status"),
			Detail: text.Draw(t, "detail"), Instance: "/" + text.Draw(t, "instance"), Code: "c" + text.Draw(t, "code"),
			RequestID: "r" + text.Draw(t, "requestID"), TraceID: text.Draw(t, "traceID"), Retryable: rapid.Bool().Draw(t, "retryable"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "errors") {
			sent.Errors = append(sent.Errors, problem.FieldError{Pointer: problem.Pointer(text.Draw(t, "pointer")), Detail: text.Draw(t, "why")})
		}
		w := httptest.NewRecorder()
		problem.Write(w, httptest.NewRequest("GET", "/", nil), sent)
		got, err := problem.Decode(w.Result())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Fatalf("(-sent +got):\n%s", diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(404, "application/problem+json", []byte(`{"type":"urn:x","status":404,"errors":[{"pointer":"/a","detail":"d"}]}`))
	f.Add(500, "application/problem+json; charset=utf-8", []byte(`{"title":null,"code":1}`))
	f.Add(503, "text/html", []byte(`<html>`))
	f.Add(400, "application/problem+json", []byte("{\"detail\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		p, err := problem.Decode(response(status, contentType, string(body)))
		if err != nil {
			if p != nil || !errors.Is(err, problem.ErrNotProblem) {
				t.Fatalf("Decode = %v, %v", p, err)
			}
			return
		}
		if p.Status != status || p.Type == "" || p.Code == "" || len(body) > problem.MaxDecode {
			t.Fatalf("Decode = %+v", p)
		}
		if !utf8.ValidString(p.Detail + p.Title + p.Code) {
			t.Fatalf("invalid UTF-8 got in: %+v", p)
		}
		// What came in can be sent on as it is.
		w := httptest.NewRecorder()
		problem.Write(w, httptest.NewRequest("GET", "/", nil), p)
		if w.Body.Len() <= problem.MaxDecode {
			if _, err := problem.Decode(w.Result()); err != nil {
				t.Fatalf("sent on: %v", err)
			}
		}
	})
}
