package openapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/openapi"
	"github.com/keelson-go/keelson/problem"
)

func TestBodies(t *testing.T) {
	t.Parallel()
	h := api(t)
	type errs map[string]string // pointer: detail
	long := strings.Repeat(secret, 5)
	for body, want := range map[string]struct {
		status int
		code   string
		errs   errs
	}{
		`{"email":"a@b.c"}`: {200, "", nil},
		` {"email":"a@b.c","note":null,"tags":null,"labels":{"a.b":"c"},"free":{"x":[1,null]}} `: {200, "", nil},
		`{"email":"a@b.c","big":18446744073709551615,"total":-9223372036854775808}`:              {200, "", nil},
		`{"email":"a@b.c","tree":{"kids":[{"value":1},{"kids":[]}]}}`:                            {200, "", nil},

		``:                                  {400, "malformed_body", nil},
		`{`:                                 {400, "malformed_body", nil},
		`{"email":` + secret:                {400, "malformed_body", nil},
		secret:                              {400, "malformed_body", nil},
		`{"email":"a@b.c"} ` + secret:       {400, "malformed_body", nil},
		`{"email":"a@b.c"}{}`:               {400, "malformed_body", nil},
		"\ufeff{}":                          {400, "malformed_body", nil},
		strings.Repeat("[", 20_000):         {400, "malformed_body", nil},
		`{"email":"` + secret + "\n" + `"}`: {400, "malformed_body", nil},

		`[]`:                           {422, "invalid", errs{"": "expected object"}},
		`null`:                         {422, "invalid", errs{"": "expected object"}},
		`"` + secret + `"`:             {422, "invalid", errs{"": "expected object"}},
		`1`:                            {422, "invalid", errs{"": "expected object"}},
		`{}`:                           {422, "invalid", errs{"/email": "is required"}},
		`{"email":null}`:               {422, "invalid", errs{"/email": "expected string"}},
		`{"email":31337}`:              {422, "invalid", errs{"/email": "expected string"}},
		`{"email":["` + secret + `"]}`: {422, "invalid", errs{"/email": "expected string"}},
		`{"email":"` + secret + `"}`:   {422, "invalid", errs{"/email": "expected string to be RFC 5322 email"}},
		`{"EMAIL":"` + secret + `"}`:   {422, "invalid", errs{"/email": "is required", "/EMAIL": "is not a known field; did you mean email?"}},
		`{"email":"a@b.c","Email":"` + secret + `"}`:              {422, "invalid", errs{"/Email": "is not a known field; did you mean email?"}},
		`{"email":"a@b.c","password":"` + secret + `"}`:           {422, "invalid", errs{"/password": "is not a known field"}},
		`{"email":"a@b.c","$schema":"` + secret + `"}`:            {422, "invalid", errs{"/$schema": "is not a known field"}},
		`{"email":"a@b.c","id":"` + secret + `"}`:                 {422, "invalid", errs{"/id": "is set by the server and cannot be sent"}},
		`{"email":"a@b.c","name":"` + long + `"}`:                 {422, "invalid", errs{"/name": "expected length <= 10"}},
		`{"email":"a@b.c","site":"http://` + secret + `:x"}`:      {422, "invalid", errs{"/site": "expected string to be RFC 3986 uri"}},
		`{"email":"a@b.c","uuid":"` + (secret + long)[:45] + `"}`: {422, "invalid", errs{"/uuid": "expected string to be RFC 4122 uuid"}},
		`{"email":"a@b.c","kind":"` + secret + `"}`:               {422, "invalid", errs{"/kind": `expected value to be one of "big, small"`}},
		`{"email":"a@b.c","code":"` + secret + `"}`:               {422, "invalid", errs{"/code": "expected string to match pattern ^[a-z]+$"}},
		`{"email":"a@b.c","due":"` + secret + `"}`:                {422, "invalid", errs{"/due": "expected string to be RFC 3339 date-time"}},
		`{"email":"a@b.c","paid":"true"}`:                         {422, "invalid", errs{"/paid": "expected boolean"}},
		`{"email":"a@b.c","rate":"` + secret + `"}`:               {422, "invalid", errs{"/rate": "expected number"}},
		`{"email":"a@b.c","rate":1e999}`:                          {422, "invalid", errs{"/rate": "the number is out of range"}},
		`{"email":"a@b.c","free":[1e999]}`:                        {422, "invalid", errs{"/free": "the number is out of range"}},
		`{"email":"a@b.c","total":1.5}`:                           {422, "invalid", errs{"/total": "expected a whole number in range, in plain digits"}},
		`{"email":"a@b.c","total":1e3}`:                           {422, "invalid", errs{"/total": "expected a whole number in range, in plain digits"}},
		`{"email":"a@b.c","total":9223372036854775808}`:           {422, "invalid", errs{"/total": "expected a whole number in range, in plain digits"}},
		`{"email":"a@b.c","big":-1}`:                              {422, "invalid", errs{"/big": "expected number >= 0"}},
		`{"email":"a@b.c","total":"` + secret + `"}`:              {422, "invalid", errs{"/total": "expected integer"}},
		// Only decoding finds the first; it cannot say where.
		`{"email":"a@b.c","small":1000}`:            {422, "invalid", errs{"": "the value is not valid"}},
		`{"email":"a@b.c","addr":"` + secret + `"}`: {422, "invalid", errs{"/addr": "expected string to be either RFC 2673 ipv4 or RFC 2373 ipv6"}},

		`{"email":"a@b.c","items":{}}`:                 {422, "invalid", errs{"/items": "expected array"}},
		`{"email":"a@b.c","items":["` + secret + `"]}`: {422, "invalid", errs{"/items/0": "expected object"}},
		`{"email":"a@b.c","items":[{"sku":"a","count":1},{"sku":"","count":0},{"count":"` + secret + `","x":1}]}`: {422, "invalid", errs{
			"/items/1/sku": "expected length >= 1", "/items/1/count": "expected number >= 1",
			"/items/2/sku": "is required", "/items/2/count": "expected integer", "/items/2/x": "is not a known field",
		}},
		`{"email":"a@b.c","items":[{"sku":"a","count":1},{"count":1,"sku":"a"}]}`: {422, "invalid", errs{"/items/1": "is in the list already"}},
		`{"email":"a@b.c","tags":["a","b","a","c"]}`:                              {422, "invalid", errs{"/tags": "expected array length <= 3", "/tags/2": "is in the list already"}},
		`{"email":"a@b.c","tags":["a",1]}`:                                        {422, "invalid", errs{"/tags/1": "expected string"}},
		`{"email":"a@b.c","a/b~c":"` + secret + `"}`:                              {422, "invalid", errs{"/a~1b~0c": "expected length <= 1"}},
		`{"email":"a@b.c","x.y":{"sku":"` + secret + `"}}`:                        {422, "invalid", errs{"/x.y/count": "is required"}},
		`{"email":"a@b.c","u.v[0]":1,"w/x":2,"":3}`:                               {422, "invalid", errs{"/u.v[0]": "is not a known field", "/w~1x": "is not a known field", "/": "is not a known field"}},
		`{"email":"a@b.c","labels":{"a.b":1,"c/d":{"e":"` + secret + `"}}}`:       {422, "invalid", errs{"/labels/a.b": "expected string", "/labels/c~1d": "expected string"}},
		// Decoding merges what stands twice, so that the first one would go in unchecked.
		`{"email":"a@b.c","x.y":{"sku":"a","count":1},"x.y":{"sku":"` + secret + `","count":1}}`: {422, "invalid", errs{"/x.y": "is there twice"}},
		`{"email":"a@b.c","free":[{},{"a":1,"a":2}]}`:                                            {422, "invalid", errs{"/free/1/a": "is there twice"}},

		`{"email":"a@b.c","tree":{"kids":[{"kids":[{"value":"` + secret + `"}]}]}}`: {422, "invalid", errs{"/tree/kids/0/kids/0/value": "expected integer"}},
	} {
		t.Run(body[:min(len(body), 40)], func(t *testing.T) {
			t.Parallel()
			for _, target := range []string{"/shops/a/orders", "/v2/grouped"} {
				w := send(t, h, "POST", target, "application/json", strings.NewReader(body))
				if want.code == "" {
					if w.Code >= 300 {
						t.Errorf("%s: %d %s", target, w.Code, w.Body)
					}
					continue
				}
				p := decode(t, w)
				if p.Status != want.status || p.Code != want.code || p.Instance != target {
					t.Errorf("%s: %+v", target, p)
				}
				var got errs
				for _, e := range p.Errors {
					if got == nil {
						got = errs{}
					}
					got[e.Pointer] = e.Detail
				}
				if diff := cmp.Diff(want.errs, got); diff != "" || len(got) != len(p.Errors) {
					t.Errorf("%s: %d errors: %s", target, len(p.Errors), diff)
				}
			}
		})
	}
}

// Decoding matches names whatever their case, so that a known field written otherwise would go in unchecked.
func TestOpenBody(t *testing.T) {
	t.Parallel()
	type open struct {
		_     struct{} `json:"-" additionalProperties:"true"`
		Count int      `json:"count,omitempty" minimum:"0"`
	}
	mux := http.NewServeMux()
	op := huma.Operation{OperationID: "open", Method: http.MethodPost, Path: "/open"}
	huma.Register(openapi.New(mux, "Shop", "1"), op, func(context.Context, *struct{ Body open }) (*struct{}, error) { return nil, nil })
	for body, want := range map[string]int{
		`{"count":1,"other":-5}`: 204,
		`{"count":-5}`:           422,
		`{"Count":-5}`:           422,
		`{"count":1,"COUNT":-5}`: 422,
	} {
		if w := send(t, mux, "POST", "/open", "application/json", strings.NewReader(body)); w.Code != want {
			t.Errorf("%s: %d %s, want %d", body, w.Code, w.Body, want)
		}
	}
}

func TestBodyMedia(t *testing.T) {
	t.Parallel()
	h := api(t)
	for media, status := range map[string]int{
		"application/json":                  204,
		"Application/JSON":                  204,
		"application/json; charset=utf-8":   204,
		"application/json ;charset=utf-8":   204,
		"":                                  415,
		"text/plain":                        415,
		"text/plain; application/json":      415,
		"application/x-www-form-urlencoded": 415,
		"multipart/form-data; boundary=x":   415,
		"application/xml+json":              415,
		"application/cbor":                  415,
		"json":                              415,
		"application/json, text/plain":      415,
		"text/" + secret:                    415,
	} {
		w := send(t, h, "POST", "/tiny", media, strings.NewReader(`{"sku":"a","count":1}`))
		if w.Code != status {
			t.Errorf("%q: %d %s", media, w.Code, w.Body)
		}
		if status == 415 {
			if p := decode(t, w); p.Code != problem.CodeUnsupportedMediaType || !strings.Contains(p.Detail, "application/json") {
				t.Errorf("%q: %+v", media, p)
			}
		}
	}
	if w := send(t, h, "POST", "/raw", "text/plain", strings.NewReader("hello")); w.Code != 200 || !strings.Contains(w.Body.String(), `"length":5`) {
		t.Errorf("raw: %d %s", w.Code, w.Body)
	}
	// No body, so nothing to have a type.
	if w := send(t, h, "POST", "/optional", "", nil); w.Code != 204 {
		t.Errorf("optional: %d %s", w.Code, w.Body)
	}
	if p := decode(t, send(t, h, "POST", "/optional", "application/json", strings.NewReader(`{}`))); p.Errors[0].Pointer != "/email" {
		t.Errorf("optional, but wrong: %+v", p)
	}
}

func TestBodySize(t *testing.T) {
	t.Parallel()
	pad := func(n int) string { // a good body of exactly n bytes
		const body = `{"sku":"a","count":1}`
		return body + strings.Repeat(" ", n-len(body))
	}
	for name, tt := range map[string]struct {
		opts   []openapi.Option
		target string
		size   int
		status int
	}{
		"default, all of it":    {nil, "/tiny", 1 << 20, 204},
		"default, one more":     {nil, "/tiny", 1<<20 + 1, 413},
		"option, all of it":     {[]openapi.Option{openapi.MaxBodyBytes(100)}, "/tiny", 100, 204},
		"option, one more":      {[]openapi.Option{openapi.MaxBodyBytes(100)}, "/tiny", 101, 413},
		"option of 0":           {[]openapi.Option{openapi.MaxBodyBytes(0)}, "/tiny", 1 << 20, 204},
		"operation, all of it":  {nil, "/small", 25, 204},
		"operation, one more":   {nil, "/small", 26, 413},
		"operation over option": {[]openapi.Option{openapi.MaxBodyBytes(22)}, "/small", 25, 204},
		"raw, one more":         {[]openapi.Option{openapi.MaxBodyBytes(100)}, "/raw", 101, 413},
		"raw, all of it":        {[]openapi.Option{openapi.MaxBodyBytes(100)}, "/raw", 100, 200},
	} {
		w := send(t, api(t, tt.opts...), "POST", tt.target, "application/json", strings.NewReader(pad(tt.size)))
		if w.Code != tt.status {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if tt.status == 413 {
			if p := decode(t, w); p.Code != problem.CodeTooLarge {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
}

func TestBodyRead(t *testing.T) {
	t.Parallel()
	h := api(t)
	for name, tt := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"broken off":      {io.ErrUnexpectedEOF, 400, problem.CodeMalformed},
		"too slow":        {iotest.ErrTimeout, 400, problem.CodeMalformed},
		"deadline":        {timeout{}, 408, problem.CodeRequestTimeout},
		"limited outside": {&http.MaxBytesError{Limit: 7}, 413, problem.CodeTooLarge},
	} {
		p := decode(t, send(t, h, "POST", "/tiny", "application/json", io.MultiReader(strings.NewReader(`{"sku":`), iotest.ErrReader(tt.err))))
		if p.Status != tt.status || p.Code != tt.code {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

type timeout struct{}

func (timeout) Error() string   { return secret }
func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return false }

// A deep and wide body of a recursive type is checked in a time that grows with its size alone.
func TestDeepBody(t *testing.T) {
	t.Parallel()
	h := api(t)
	const depth = 4000
	body := `{"email":"a@b.c","tree":` + strings.Repeat(`{"kids":[`, depth) + strings.TrimSuffix(strings.Repeat(`{"value":"x"},`, 30_000), ",") +
		strings.Repeat(`]}`, depth) + `}`
	begun := time.Now()
	p := decode(t, send(t, api(t), "POST", "/shops/a/orders", "application/json", strings.NewReader(body[:1000])))
	if p.Status != 400 {
		t.Errorf("%+v", p)
	}
	w := send(t, h, "POST", "/shops/a/orders", "application/json", strings.NewReader(body))
	var got problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 422 || len(got.Errors) != 50 {
		t.Errorf("%d, %d errors, %v", w.Code, len(got.Errors), err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
}

func FuzzBody(f *testing.F) {
	h := api(f)
	for _, s := range []string{
		`{"email":"a@b.c"}`, `[]`, `null`, `{"items":[{"sku":"a","count":1},{}]}`, `{"tags":["a","a"],"free":[{}]}`, `{"a.b":{"c[0]":1}}`,
		`{"tree":{"kids":[{"kids":[]}]}}`, `{"labels":{"~":"/"}}`, "{\"\xff\":1}", `1e999`, `{"free":{"a":1e999,"a":[{"b":1,"b":{}}]}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "/shops/a/orders", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200:
			if !json.Valid(body) {
				t.Fatalf("accepted %q", body)
			}
		case 400, 422:
			p := decode(t, w)
			if (p.Status == 422) != (len(p.Errors) > 0) || (p.Status == 400) == json.Valid(body) {
				t.Fatalf("%q: %+v", body, p)
			}
			for _, e := range p.Errors {
				if e.Pointer != "" && e.Pointer[0] != '/' || e.Detail == "" {
					t.Fatalf("%q: %+v", body, e)
				}
			}
		default:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
