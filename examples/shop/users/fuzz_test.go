package users_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/examples/shop/users"
)

// Whatever is sent, it is the client's fault or a user, and on all databases the
// same.
func FuzzCreate(f *testing.F) {
	var stores []*users.Store
	for _, b := range backends {
		stores = append(stores, openAt(f, b.quick(f)))
	}
	for _, body := range []string{
		`{"name":"Ann","email":"ann@example.org"}`, `{"name":"\u0000","email":"a@b"}`, `{"name":"\ud800","email":"a@[1.2.3.4]"}`,
		"{\"name\":\"\xff\",\"email\":\"a@b\"}", `{"name":1e999,"email":{}}`, `[[[[`, `{"name":"a","name":"b","email":"\"a\"@b"}`, ``, `null`,
	} {
		f.Add(jsonType, []byte(body))
	}
	f.Add("application/json; charset=\"", []byte(`{}`))
	f.Add("multipart/form-data; boundary=x", []byte("--x--"))
	f.Fuzz(func(t *testing.T, media string, body []byte) {
		first := 0
		for i, s := range stores {
			code := tryCreate(t, s, media, body)
			if i == 0 {
				first = code
			} else if code != first {
				t.Fatalf("%s: %d, but %s: %d", backends[0].name, first, backends[i].name, code)
			}
		}
	})
}

func tryCreate(t *testing.T, s *users.Store, media string, body []byte) (code int) {
	h, _ := newAPI(t, s)
	w := call(h, "POST", "/users", media, string(body))
	switch w.Code {
	case 201:
		var u users.User
		if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil {
			t.Fatal(err)
		}
		stored, err := s.Get(t.Context(), u.ID)
		if err != nil || stored != u || u.Name != strings.TrimSpace(u.Name) || u.Name == "" || !strings.Contains(u.Email, "@") {
			t.Fatalf("answered %+v, stored %+v, %v", u, stored, err)
		}
		if err := s.Delete(t.Context(), u.ID); err != nil {
			t.Fatal(err)
		}
	case 400, 413, 415, 422:
		if w.Header().Get("Content-Type") != "application/problem+json" {
			t.Fatal(answer(w))
		}
	default:
		t.Fatal(answer(w))
	}
	return w.Code
}
