package openapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/openapi"
	"github.com/keelson-go/keelson/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is sent in wrong places; no answer may show it.
const secret = "s3cr3t-hunter2"

type item struct {
	SKU   string `json:"sku" minLength:"1"`
	Count int32  `json:"count" minimum:"1"`
}

type order struct {
	ID     string            `json:"id,omitempty" readOnly:"true"`
	Email  string            `json:"email" format:"email"`
	Name   string            `json:"name,omitempty" maxLength:"10"`
	Site   string            `json:"site,omitempty" format:"uri"`
	UUID   string            `json:"uuid,omitempty" format:"uuid"`
	Kind   string            `json:"kind,omitempty" enum:"big,small"`
	Code   string            `json:"code,omitempty" pattern:"^[a-z]+$"`
	Total  int64             `json:"total,omitempty"`
	Big    uint64            `json:"big,omitempty"`
	Small  int8              `json:"small,omitempty"`
	Rate   float64           `json:"rate,omitempty"`
	Paid   bool              `json:"paid,omitempty"`
	Due    time.Time         `json:"due,omitzero"`
	Addr   netip.Addr        `json:"addr,omitzero"`
	Note   *string           `json:"note,omitempty"`
	Tags   []string          `json:"tags,omitempty" maxItems:"3" uniqueItems:"true"`
	Items  []item            `json:"items,omitempty" uniqueItems:"true"`
	Slash  string            `json:"a/b~c,omitempty" maxLength:"1"`
	Dotted item              `json:"x.y,omitzero"`
	Labels map[string]string `json:"labels,omitempty"`
	Free   any               `json:"free,omitempty"`
	Tree   *tree             `json:"tree,omitempty"`
}

type tree struct {
	Value int    `json:"value,omitempty"`
	Kids  []tree `json:"kids,omitempty"`
}

type orderInput struct {
	Shop  string     `path:"shop" maxLength:"8"`
	Limit int        `query:"limit" minimum:"1" maximum:"100" default:"50"`
	IDs   []int      `query:"ids"`
	Since time.Time  `query:"since"`
	Addr  netip.Addr `query:"addr"`
	UUID  string     `query:"uuid" format:"uuid"`
	Need  string     `header:"X-Need"`
	Body  order
}

type echo struct{ Body map[string]any }

// api serves one operation of each kind.
func api(t testing.TB, opts ...openapi.Option) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	a := openapi.New(mux, "Shop", "1.2.3", opts...)
	post := func(path string) huma.Operation {
		return huma.Operation{OperationID: path[1:4], Method: http.MethodPost, Path: path}
	}
	huma.Register(a, post("/shops/{shop}/orders"), func(_ context.Context, in *orderInput) (*echo, error) {
		return &echo{map[string]any{"email": in.Body.Email, "limit": in.Limit}}, nil
	})
	huma.Register(a, post("/optional"), func(_ context.Context, in *struct{ Body *order }) (*struct{}, error) {
		return nil, nil
	})
	huma.Register(a, post("/tiny"), func(context.Context, *struct{ Body item }) (*struct{}, error) { return nil, nil })
	small := post("/small")
	small.MaxBodyBytes = 25
	huma.Register(a, small, func(context.Context, *struct{ Body item }) (*struct{}, error) { return nil, nil })
	huma.Register(a, post("/raw"), func(_ context.Context, in *struct{ RawBody []byte }) (*echo, error) {
		return &echo{map[string]any{"length": len(in.RawBody)}}, nil
	})
	huma.Register(a, huma.Operation{OperationID: "fail", Method: http.MethodGet, Path: "/fail/{how}"},
		func(ctx context.Context, in *struct {
			How string `path:"how"`
		}) (*echo, error) {
			return nil, failure(in.How)
		})
	group := huma.NewGroup(a, "/v2")
	huma.Register(group, post("/grouped"), func(context.Context, *struct{ Body order }) (*struct{}, error) { return nil, nil })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req-7")
		mux.ServeHTTP(w, r)
	})
}

var shared = problem.New(http.StatusConflict, problem.CodeConflict, "The email is taken.")

func failure(how string) error {
	switch how {
	case "problem":
		return shared
	case "wrapped":
		return fmt.Errorf("create user: %w", shared)
	case "huma":
		return huma.Error404NotFound("No user 7.")
	case "huma503":
		return huma.Error503ServiceUnavailable("Closed.", errors.New(secret))
	case "unknown":
		return errors.New("dial " + secret)
	case "deadline":
		return fmt.Errorf("query %s: %w", secret, context.DeadlineExceeded)
	case "invalid":
		return openapi.Invalid(problem.FieldError{Pointer: "/email", Detail: "is not allowed here"})
	case "huma422":
		return huma.Error422UnprocessableEntity("no", &huma.ErrorDetail{Location: "body.items[0].sku", Message: "is sold out", Value: secret})
	case "notmodified":
		return huma.Status304NotModified()
	case "header":
		return huma.ErrorWithHeaders(huma.Error401Unauthorized("Who?"), http.Header{"Www-Authenticate": {"Bearer"}})
	}
	return nil
}

func send(t testing.TB, h http.Handler, method, target, media string, body io.Reader) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, body)
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if strings.Contains(w.Body.String(), secret) {
		t.Errorf("the answer shows the secret: %s", w.Body)
	}
	return w
}

// decode checks what is the same in all problems.
func decode(t testing.TB, w *httptest.ResponseRecorder) *problem.Problem {
	t.Helper()
	p, err := problem.Decode(w.Result())
	if err != nil {
		t.Fatalf("%v: %d %s %s", err, w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	if p.RequestID != "req-7" || p.Instance == "" || p.Detail == "" || p.Title == "" || p.Type != "urn:keelson:problem:"+p.Code {
		t.Errorf("incomplete: %+v", p)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("may be cached")
	}
	var raw struct{ Status int }
	if err := json.Unmarshal(w.Body.Bytes(), &raw); err != nil || raw.Status != w.Code {
		t.Errorf("status %d in the body of a %d", raw.Status, w.Code)
	}
	return p
}

func TestParameters(t *testing.T) {
	t.Parallel()
	h := api(t)
	const good = `{"email":"a@b.c"}`
	for target, want := range map[string]map[string]string{
		"/shops/a/orders?limit=0":                                          {"#query/limit": "expected number >= 1"},
		"/shops/a/orders?limit=" + secret:                                  {"#query/limit": "invalid integer"},
		"/shops/a/orders?limit=101&ids=1,x":                                {"#query/limit": "expected number <= 100", "#query/ids": "invalid integer"},
		"/shops/a/orders?since=" + secret:                                  {"#query/since": "invalid date/time for format 2006-01-02T15:04:05.999999999Z07:00"},
		"/shops/a/orders?addr=" + secret:                                   {"#query/addr": "the value is not valid"},
		"/shops/a/orders?uuid=" + (secret + secret + secret + secret)[:45]: {"#query/uuid": "expected string to be RFC 4122 uuid"},
		"/shops/abcdefghi/orders":                                          {"#path/shop": "expected length <= 8"},
	} {
		p := decode(t, send(t, h, "POST", target, "application/json", strings.NewReader(good)))
		got := map[string]string{}
		for _, e := range p.Errors {
			got[e.Pointer] = e.Detail
		}
		if diff := cmp.Diff(want, got); diff != "" || p.Status != 422 || p.Code != problem.CodeInvalid {
			t.Errorf("%s: %d %s", target, p.Status, diff)
		}
	}
	if w := send(t, h, "POST", "/shops/a/orders?limit=7&other="+secret, "application/json", strings.NewReader(good)); w.Code != 200 || !strings.Contains(w.Body.String(), `"limit":7`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHandlerErrors(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	logged := map[string]string{}
	h := api(t, openapi.OnError(func(ctx context.Context, err error) {
		mu.Lock()
		defer mu.Unlock()
		logged[ctx.Value(howKey{}).(string)] = err.Error()
	}))
	for how, want := range map[string]struct {
		status int
		code   string
		detail string
		errs   []problem.FieldError
		logged bool
	}{
		"problem":  {409, "conflict", "The email is taken.", nil, false},
		"wrapped":  {409, "conflict", "The email is taken.", nil, false},
		"huma":     {404, "not_found", "No user 7.", nil, false},
		"huma503":  {503, "unavailable", "Service Unavailable.", nil, false},
		"unknown":  {500, "internal", "The request failed because of an error inside the service.", nil, true},
		"deadline": {504, "deadline_exceeded", "The request took longer than its deadline allows.", nil, true},
		"invalid":  {422, "invalid", "The request has fields that are missing, wrong or unknown.", []problem.FieldError{{Pointer: "/email", Detail: "is not allowed here"}}, false},
		"huma422":  {422, "invalid", "The request has fields that are missing, wrong or unknown.", []problem.FieldError{{Pointer: "/items/0/sku", Detail: "is sold out"}}, false},
		"header":   {401, "unauthenticated", "Who?", nil, false},
	} {
		r := httptest.NewRequest("GET", "/fail/"+how, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), howKey{}, how)))
		p := decode(t, w)
		if strings.Contains(w.Body.String(), secret) {
			t.Errorf("%s shows the secret: %s", how, w.Body)
		}
		if p.Status != want.status || w.Code != want.status || p.Code != want.code || p.Detail != want.detail {
			t.Errorf("%s: %d %+v", how, w.Code, p)
		}
		if diff := cmp.Diff(want.errs, p.Errors); diff != "" {
			t.Errorf("%s: %s", how, diff)
		}
		if how == "header" && w.Header().Get("Www-Authenticate") != "Bearer" {
			t.Error("the header of the error is lost")
		}
		if got := logged[how]; (got != "") != want.logged || want.logged && !strings.Contains(got, secret) {
			t.Errorf("%s: logged %q", how, got)
		}
	}
	if w := send(t, h, "GET", "/fail/notmodified", "", nil); w.Code != 304 || w.Body.Len() > 0 {
		t.Errorf("304: %d %s", w.Code, w.Body)
	}
	if shared.RequestID != "" || shared.Instance != "" {
		t.Error("the handler's own problem was changed")
	}
}

type howKey struct{}

// Over a real connection: HEAD gets the headers of the answer, and no body.
func TestHEAD(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(api(t))
	t.Cleanup(s.Close)
	resp, err := s.Client().Head(s.URL + "/fail/huma")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || len(b) > 0 || resp.StatusCode != 404 || resp.Header.Get("Content-Type") != problem.ContentType {
		t.Errorf("%d %s %q %v", resp.StatusCode, resp.Header.Get("Content-Type"), b, err)
	}
}

func TestAccept(t *testing.T) {
	t.Parallel()
	h := api(t)
	for _, accept := range []string{"", "*/*", "text/html", "application/problem+json", "application/json;q=0.1", secret} {
		r := httptest.NewRequest("GET", "/fail/huma", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if p := decode(t, w); p.Status != 404 {
			t.Errorf("%q: %+v", accept, p)
		}
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	a := openapi.New(mux, "Shop", "1.2.3")
	// Two types of one name from two packages, alone and in a generic type.
	type page[T any] struct {
		Next string `json:"next"`
		List []T    `json:"list"`
	}
	get := func(path string) huma.Operation {
		return huma.Operation{OperationID: path[1:], Method: http.MethodGet, Path: path}
	}
	huma.Register(a, get("/a"), func(context.Context, *struct{}) (*struct{ Body page[problem.Problem] }, error) { return nil, nil })
	huma.Register(a, get("/b"), func(context.Context, *struct{}) (*struct{ Body page[Problem] }, error) { return nil, nil })
	huma.Register(a, get("/c"), func(context.Context, *struct{}) (*struct{ Body Problem }, error) { return nil, nil })

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest("GET", "/openapi.json", nil))
			if w.Code != 200 || w.Header().Get("Content-Type") != "application/openapi+json" {
				t.Errorf("%d %v", w.Code, w.Header())
			}
			var doc struct {
				OpenAPI    string
				Info       struct{ Title, Version string }
				Paths      map[string]any
				Components struct {
					Schemas map[string]struct{ Properties map[string]any }
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
				t.Error(err)
			}
			if doc.OpenAPI != "3.1.0" || doc.Info.Title != "Shop" || doc.Info.Version != "1.2.3" || len(doc.Paths) != 3 {
				t.Errorf("%+v", doc)
			}
			mine, other := doc.Components.Schemas["OpenapiTestProblem"].Properties, doc.Components.Schemas["Problem"].Properties
			if mine["here"] == nil || other["requestId"] == nil {
				t.Errorf("schemas %v", doc.Components.Schemas)
			}
			for _, bad := range []string{"$schema", "unpkg", "jsdelivr", "http://", "https://"} {
				if strings.Contains(w.Body.String(), bad) {
					t.Errorf("%q in %s", bad, w.Body)
				}
			}
			w = httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest("GET", "/openapi.yaml", nil))
			if w.Code != 200 || !strings.Contains(w.Body.String(), "title: Shop") {
				t.Errorf("YAML: %d %.200s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	for _, path := range []string{"/docs", "/schemas/Problem.json", "/openapi-3.0.json"} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// Problem has a namesake in package problem.
type Problem struct {
	Here string `json:"here"`
}

func TestAnswersHaveNoSchemaLinks(t *testing.T) {
	t.Parallel()
	w := send(t, api(t), "POST", "/shops/a/orders", "application/json", strings.NewReader(`{"email":"a@b.c"}`))
	if w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"email":"a@b.c","limit":50}` || w.Header().Get("Link") != "" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

func Example() {
	type input struct {
		Body struct {
			Email string `json:"email" format:"email"`
		}
	}
	mux := http.NewServeMux()
	api := openapi.New(mux, "Users", "1.0.0")
	huma.Register(api, huma.Operation{OperationID: "create-user", Method: http.MethodPost, Path: "/users"},
		func(_ context.Context, in *input) (*struct{}, error) {
			return nil, problem.New(http.StatusConflict, problem.CodeConflict, "This email is taken.")
		})

	for _, body := range []string{`{"email":"ann@example.com"}`, `{"mail":"hunter2"}`} {
		r := httptest.NewRequest("POST", "/users", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		p, err := problem.Decode(w.Result())
		fmt.Println(p.Status, p.Code, p.Errors, err)
	}
	// Output:
	// 409 conflict [] <nil>
	// 422 invalid [{/email is required} {/mail is not a known field}] <nil>
}
